#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "checkpoint/safetensors_format.hpp"
#include "lockstep/checkpoint/safetensors.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep::checkpoint {
namespace {

using nlohmann::json;

class SafetensorsWriter {
 public:
  explicit SafetensorsWriter(const std::map<std::string, std::string>& metadata) {
    for (const auto& [name, text] : metadata) add(name, text);
  }

  void add(const std::string& prefix, const StateDict& state) {
    for (const auto& [key, value] : state) add_value(join(prefix, key), value);
  }

  void write(const std::filesystem::path& path, FileSystem& files) {
    // The largest elements first, so that all are aligned.
    std::sort(tensors_.begin(), tensors_.end(), [](const Entry& a, const Entry& b) {
      return std::pair(item_size(b.tensor.dtype()), std::string_view(a.name)) <
             std::pair(item_size(a.tensor.dtype()), std::string_view(b.name));
    });
    json header = json::object();
    if (!metadata_.empty()) header[metadata_key] = metadata_;
    std::uint64_t end = 0;
    for (const auto& [name, dtype, tensor] : tensors_) {
      const std::uint64_t begin = std::exchange(end, end + tensor.bytes());
      header[name] = {{"dtype", dtype},
                      {"shape", std::vector(tensor.shape().begin(), tensor.shape().end())},
                      {"data_offsets", {begin, end}}};
    }
    std::string text = dump(header);
    text.resize((text.size() + 7) / 8 * 8, ' ');
    const std::uint64_t bytes = text.size();
    if (bytes > max_safetensors_header_bytes) {
      throw CheckpointError(
          fmt::format("the names and texts take {} bytes, more than the {} that the header of a "
                      "safetensors file may have",
                      bytes, max_safetensors_header_bytes));
    }
    replace_file(path, files, [&](OutputFile& file) {
      file.write(&bytes, sizeof bytes);
      file.write(text.data(), text.size());
      for (const Entry& entry : tensors_)
        file.write(std::as_const(entry.tensor).raw(), entry.tensor.bytes());
    });
  }

 private:
  struct Entry {
    std::string name;
    std::string_view dtype;
    Tensor tensor;
  };

  static std::string join(const std::string& prefix, std::string_view name) {
    return prefix.empty() ? std::string(name) : fmt::format("{}.{}", prefix, name);
  }

  std::string dump(const json& header) const try {
    return header.dump();
  } catch (const json::type_error&) {
    for (const Entry& entry : tensors_) check_text(entry.name, entry.name);
    for (const auto& [name, text] : metadata_) {
      check_text(name, name);
      check_text(text, fmt::format("the text of {}", name));
    }
    throw;
  }

  static void check_text(const std::string& text, const std::string& what) {
    try {
      (void)json(text).dump();
    } catch (const json::type_error&) {
      const std::string quoted = json(what).dump(-1, ' ', true, json::error_handler_t::replace);
      throw NameError(fmt::format("'{}' is not valid UTF-8, which a safetensors file needs",
                                  quoted.substr(1, quoted.size() - 2)));
    }
  }

  void add_value(const std::string& name, const StateValue& value) {
    std::visit([&](const auto& content) { add(name, content); }, value.variant());
  }

  void add(const std::string& name, const TensorPart&) {
    throw StateError(
        fmt::format("'{}' is a part of a tensor, of which other ranks hold the rest", name));
  }

  void add(const std::string& name, const StateList& items) {
    for (std::size_t i = 0; i < items.size(); ++i)
      add_value(join(name, std::to_string(i)), items[i]);
  }

  void add(const std::string& name, const std::string& text) {
    if (!metadata_.emplace(name, text).second) {
      throw NameError(fmt::format("two texts of a safetensors file are called '{}'", name));
    }
  }

  void add(const std::string& name, bool value) {
    add(name, "BOOL", Tensor::full({}, value ? 1 : 0, DType::u8));
  }
  void add(const std::string& name, std::int64_t value) {
    add(name, Tensor::from(std::span<const std::int64_t>(&value, 1), {}));
  }
  void add(const std::string& name, double value) {
    add(name, Tensor::from(std::span<const double>(&value, 1), {}));
  }

  void add(const std::string& name, const Tensor& tensor) {
    if (!tensor.defined()) throw StateError(fmt::format("state '{}' is an undefined tensor", name));
    constexpr std::array names{"F32", "F64", "I64", "U8"};
    add(name, names[static_cast<std::size_t>(tensor.dtype())], tensor);
  }

  void add(const std::string& name, std::string_view dtype, const Tensor& tensor) {
    if (name == metadata_key) {
      throw NameError(fmt::format("a tensor of a safetensors file cannot be called '{}'", name));
    }
    if (!names_.insert(name).second) {
      throw NameError(fmt::format("two entries of a safetensors file are called '{}'", name));
    }
    tensors_.push_back({name, dtype, tensor});
  }

  std::vector<Entry> tensors_;
  std::set<std::string> names_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace

void write_safetensors(const std::string& path, const StateDict& state,
                       const std::map<std::string, std::string>& metadata) {
  write_safetensors(path, state, metadata, *posix_file_system());
}

void write_safetensors(const std::string& path, const StateDict& state,
                       const std::map<std::string, std::string>& metadata, FileSystem& files) {
  SafetensorsWriter writer(metadata);
  writer.add("", state);
  writer.write(path, files);
}

}  // namespace lockstep::checkpoint
