#include "tools/convert.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

#include "checkpoint/file.hpp"
#include "checkpoint/input_file.hpp"
#include "checkpoint/metadata.hpp"
#include "checkpoint/npy.hpp"
#include "checkpoint/safetensors_format.hpp"
#include "checkpoint/safetensors_items.hpp"
#include "lockstep/core/error.hpp"
#include "state/records.hpp"
#include "tools/byte_progress.hpp"
#include "tools/npy_folder.hpp"
#include "tools/text.hpp"

namespace lockstep::tools {
namespace {

namespace fs = std::filesystem;

enum class Kind { checkpoint, safetensors, npy, folder };

constexpr std::array kind_names{"a checkpoint", "a safetensors file", "an NPY file",
                                "a folder of NPY files"};
std::string_view name_of(Kind kind) { return kind_names[static_cast<std::size_t>(kind)]; }

// By its first bytes.
Kind kind_of_input(const fs::path& path) {
  checkpoint::InputFile file("file", path);
  std::string begin(std::min<std::uint64_t>(file.size(), 9), '\0');
  file.read(0, begin.data(), begin.size());
  if (begin.starts_with("LOCKSTEP")) return Kind::checkpoint;
  if (begin.starts_with("\x93NUMPY")) return Kind::npy;
  if (begin.ends_with('{') && begin.size() == 9) return Kind::safetensors;
  file.fail("it begins neither as a checkpoint, nor as a safetensors or NPY file");
}

// By its name.
Kind kind_of_output(const fs::path& path) {
  std::error_code error;
  if (!path.has_filename() || fs::is_directory(path, error)) return Kind::folder;
  if (path.extension() == ".lockstep") return Kind::checkpoint;
  if (path.extension() == ".safetensors") return Kind::safetensors;
  if (path.extension() == ".npy") return Kind::npy;
  throw OptionError(
      fmt::format("expected a name that ends with .lockstep, .safetensors, .npy or a slash, or a "
                  "folder, to write to; found '{}'",
                  path.string()));
}

void check_options(const ConvertOptions& options, Kind in, Kind out) {
  if (in != Kind::checkpoint && (in == out || (in == Kind::npy && out == Kind::folder))) {
    throw OptionError(fmt::format("'{}' is {} already", options.in.string(), name_of(in)));
  }
  const bool names_model =
      in == Kind::safetensors && out == Kind::checkpoint && options.items.size() == 1;
  if (!options.items.empty() && in != Kind::checkpoint && !names_model) {
    throw OptionError(
        "--item is for checkpoints that are converted, and once for a safetensors file that "
        "becomes "
        "a checkpoint");
  }
  if (options.tensor.has_value() != (in == Kind::npy || out == Kind::npy)) {
    throw OptionError(options.tensor ? "--tensor is for NPY files only"
                                     : "an NPY file has one tensor: say which with --tensor");
  }
}

void check_is_free(const ConvertOptions& options, Kind out) {
  std::error_code error;
  const bool used = out == Kind::folder && fs::is_directory(options.out, error)
                        ? !fs::is_empty(options.out, error)
                        : fs::exists(fs::symlink_status(options.out, error));
  if (!used || options.force) return;
  throw CheckpointError(fmt::format("'{}' {}; --force replaces files", options.out.string(),
                                    out == Kind::folder ? "has files in it" : "exists"));
}

// The operating system's files, with the progress of what is written.
class WatchedFiles : public checkpoint::FileSystem {
 public:
  explicit WatchedFiles(ByteProgress& progress) : progress_(progress) {}

  std::uint64_t bytes() const { return bytes_; }

  std::unique_ptr<checkpoint::OutputFile> create(const fs::path& path) override {
    return std::make_unique<File>(files_->create(path), *this);
  }
  void rename(const fs::path& from, const fs::path& to) override { files_->rename(from, to); }
  void sync_folder(const fs::path& folder) override { files_->sync_folder(folder); }
  void remove(const fs::path& path) noexcept override { files_->remove(path); }

 private:
  class File : public checkpoint::OutputFile {
   public:
    File(std::unique_ptr<checkpoint::OutputFile> file, WatchedFiles& owner)
        : file_(std::move(file)), owner_(owner) {}

    void write(const void* bytes, std::size_t size) override {
      constexpr std::size_t most = std::size_t{4} << 20;
      const auto* next = static_cast<const std::byte*>(bytes);
      while (size > 0) {
        const std::size_t some = std::min(size, most);
        file_->write(next, some);
        next += some;
        size -= some;
        owner_.bytes_ += some;
        owner_.progress_.update(owner_.bytes_);
      }
    }
    void sync() override { file_->sync(); }

   private:
    std::unique_ptr<checkpoint::OutputFile> file_;
    WatchedFiles& owner_;
  };

  std::unique_ptr<checkpoint::FileSystem> files_ = checkpoint::posix_file_system();
  ByteProgress& progress_;
  std::uint64_t bytes_ = 0;
};

StateDict selected(const StateDict& state, const ConvertOptions& options) {
  if (options.items.empty()) return state;
  StateDict result;
  for (const std::string& item : options.items) {
    if (!state.contains(item)) {
      std::vector<std::string> names;
      for (const auto& [name, value] : state) names.push_back(name_text(name));
      throw NameError(fmt::format("the checkpoint '{}' has no item '{}'; it has: {}",
                                  options.in.string(), item, fmt::join(names, ", ")));
    }
    result[item] = state.at(item);
  }
  return result;
}

// A tensor under its path, in the items of a checkpoint.
StateDict at_path(std::string_view path, Tensor tensor) {
  const std::size_t slash = path.find('/');
  if (slash == 0 || slash == std::string_view::npos || slash + 1 == path.size()) {
    throw OptionError(fmt::format(
        "expected --tensor with an item and a name in it, such as model/0.weight; found '{}'",
        path));
  }
  StateDict items;
  items[path.substr(0, slash)].as_dict()[path.substr(slash + 1)] = std::move(tensor);
  return items;
}

checkpoint::SafetensorsFile read(const ConvertOptions& options, Kind in, Kind out) {
  if (in == Kind::npy) {
    Tensor tensor = checkpoint::read_npy(options.in);
    if (out == Kind::checkpoint) return {at_path(*options.tensor, std::move(tensor)), {}};
    return {{{*options.tensor, std::move(tensor)}}, {}};
  }
  ByteProgress progress(options.in, fs::file_size(options.in));
  const auto update = [&progress](std::uint64_t done) { progress.update(done); };
  checkpoint::SafetensorsFile contents;
  if (in == Kind::safetensors) {
    contents = checkpoint::read_safetensors(options.in, update);
  } else {
    const checkpoint::FileContents file = checkpoint::read_contents(options.in, update);
    StateDict items = unflatten(file.header.records, file.tensors);
    StateDict metadata = checkpoint::take_metadata(items);
    contents.tensors = selected(items, options);
    // What was said of the checkpoint is no part of the state, which others are to read.
    if (out == Kind::checkpoint && !metadata.empty()) {
      contents.tensors[checkpoint::metadata_name] = std::move(metadata);
    }
  }
  progress.finish();
  return contents;
}

// Makes of what was read what is to be written.
void rearrange(checkpoint::SafetensorsFile& contents, const ConvertOptions& options, Kind in,
               Kind out) {
  if (in == Kind::checkpoint && out == Kind::safetensors) {
    contents = checkpoint::pack_items(contents.tensors, checkpoint::find_roles(contents.tensors));
  } else if (in == Kind::safetensors && out == Kind::checkpoint) {
    std::optional<std::string> model;
    if (!options.items.empty()) model = options.items.front();
    try {
      contents.tensors = checkpoint::unpack_items(contents, model);
    } catch (const Error& error) {
      throw CheckpointError(fmt::format("the safetensors file '{}' cannot be used: {}",
                                        options.in.string(), error.what()));
    }
  }
  if (in != Kind::checkpoint && out == Kind::checkpoint) {
    checkpoint::check_no_metadata(contents.tensors);
  }
}

const Leaf& find(const std::vector<Leaf>& leaves, const ConvertOptions& options) {
  const Leaf* found = nullptr;
  for (const Leaf& leaf : leaves) {
    if (path_text(leaf.path) != *options.tensor) continue;
    if (found != nullptr) {
      throw NameError(
          fmt::format("'{}' has two tensors '{}'", options.in.string(), *options.tensor));
    }
    found = &leaf;
  }
  if (found == nullptr) {
    throw NameError(fmt::format("'{}' has no tensor '{}'", options.in.string(), *options.tensor));
  }
  if (!npy_tensor(*found->value)) {
    throw NameError(fmt::format("'{}' in '{}': expected a tensor or number, found {}",
                                *options.tensor, options.in.string(), found->value->kind()));
  }
  return *found;
}

// What `out` has no place for, by name.
std::vector<std::string> left_out(const checkpoint::SafetensorsFile& contents,
                                  const std::vector<Leaf>& leaves, Kind out) {
  std::vector<std::string> names;
  if (out == Kind::folder) {
    for (const Leaf& leaf : leaves) {
      if (!npy_tensor(*leaf.value)) names.push_back(name_text(leaf.path));
    }
  }
  if (out == Kind::checkpoint || out == Kind::folder) {
    for (const auto& [name, text] : contents.metadata) {
      // By which programs tell who has written a file.
      if (name != "format") names.push_back("the metadata " + name_text(name));
    }
  }
  return names;
}

void check_left_out(std::vector<std::string> names, const ConvertOptions& options, Kind out) {
  if (names.empty() || options.drop) return;
  constexpr std::size_t most = 3;
  std::string more;
  if (names.size() > most) {
    more = fmt::format(" and {} more", names.size() - most);
    names.resize(most);
  }
  throw CheckpointError(fmt::format("{} has no place for what '{}' has: {}{}; --drop leaves it out",
                                    name_of(out), options.in.string(), fmt::join(names, ", "),
                                    more));
}

void write(const checkpoint::SafetensorsFile& contents, const std::vector<Leaf>& leaves,
           const ConvertOptions& options, Kind out, checkpoint::FileSystem& files) {
  switch (out) {
    case Kind::checkpoint: {
      const FlatState flat = flatten(contents.tensors);
      write_state(options.out, flat, checkpoint::make_header(flat), files);
      break;
    }
    case Kind::safetensors:
      checkpoint::write_safetensors(options.out, contents.tensors, contents.metadata, files);
      break;
    case Kind::npy:
      checkpoint::write_npy(options.out, *npy_tensor(*leaves.front().value), files);
      break;
    case Kind::folder:
      write_npy_folder(options.out, leaves, files);
      break;
  }
}

// How many tensors are written, and their bytes. Numbers are tensors but in a checkpoint.
std::pair<std::uint64_t, std::uint64_t> count_tensors(const std::vector<Leaf>& leaves, Kind out) {
  std::uint64_t tensors = 0, bytes = 0;
  for (const Leaf& leaf : leaves) {
    const bool is_tensor = std::holds_alternative<Tensor>(leaf.value->variant());
    if (out == Kind::checkpoint && !is_tensor) continue;
    if (const auto tensor = npy_tensor(*leaf.value)) {
      ++tensors;
      bytes += tensor->bytes();
    }
  }
  return {tensors, bytes};
}

}  // namespace

void convert(const ConvertOptions& options) {
  const Kind out = kind_of_output(options.out), in = kind_of_input(options.in);
  check_options(options, in, out);
  check_is_free(options, out);
  checkpoint::SafetensorsFile contents = read(options, in, out);
  rearrange(contents, options, in, out);
  std::vector<Leaf> written = leaves(contents.tensors);
  if (out == Kind::npy) written = {find(written, options)};
  const std::vector<std::string> dropped = left_out(contents, written, out);
  check_left_out(dropped, options, out);
  const auto [tensors, tensor_bytes] = count_tensors(written, out);
  ByteProgress progress(options.out, tensor_bytes);
  WatchedFiles files(progress);
  write(contents, written, options, out, files);
  progress.finish();
  for (const std::string& name : dropped) print_wrapped("left out  ", name);
  fmt::print("wrote  {}  {}, {} bytes\n", options.out.string(), count_text(tensors, "tensor"),
             files.bytes());
}

}  // namespace lockstep::tools
