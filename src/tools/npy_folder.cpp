#include "tools/npy_folder.hpp"

#include <fmt/format.h>

#include <set>
#include <span>
#include <system_error>
#include <utility>
#include <variant>

#include "checkpoint/npy.hpp"
#include "lockstep/core/error.hpp"
#include "tools/text.hpp"

namespace lockstep::tools {
namespace {

namespace fs = std::filesystem;

void add_leaves(const Json& path, const StateValue& value, std::vector<Leaf>& result) {
  const auto entries = children(value);
  for (const auto& [key, child] : entries) add_leaves(join(path, key), *child, result);
  if (entries.empty()) result.push_back({path, &value});
}

std::string key_text(const Json& key) {
  return key.is_string() ? key.get<std::string>() : key.dump();
}

// Relative to the folder.
fs::path file_of(const Json& path) {
  fs::path file;
  for (const Json& key : path) {
    const std::string name = key_text(key);
    if (name.empty() || name == "." || name == ".." ||
        name.find_first_of(std::string_view("/\0", 2)) != std::string::npos) {
      throw NameError(fmt::format("'{}' cannot be a file: '{}' is no name for one", name_text(path),
                                  name_text(key)));
    }
    file /= name;
  }
  file += ".npy";
  return file;
}

}  // namespace

std::optional<Tensor> npy_tensor(const StateValue& value) {
  if (const auto* tensor = std::get_if<Tensor>(&value.variant())) return *tensor;
  if (const auto* number = std::get_if<bool>(&value.variant())) {
    return Tensor::full({}, *number ? 1 : 0, DType::u8);
  }
  if (const auto* number = std::get_if<std::int64_t>(&value.variant())) {
    return Tensor::from(std::span(number, 1), {});
  }
  if (const auto* number = std::get_if<double>(&value.variant())) {
    return Tensor::from(std::span(number, 1), {});
  }
  return std::nullopt;
}

std::vector<Leaf> leaves(const StateDict& state) {
  std::vector<Leaf> result;
  for (const auto& [key, value] : state) add_leaves(Json::array({key}), value, result);
  return result;
}

std::string path_text(const Json& path) {
  std::string text;
  for (const Json& key : path) {
    if (!text.empty()) text += '/';
    text += key_text(key);
  }
  return text;
}

void write_npy_folder(const fs::path& folder, const std::vector<Leaf>& leaves,
                      checkpoint::FileSystem& files) {
  std::vector<std::pair<fs::path, Tensor>> tensors;
  for (const Leaf& leaf : leaves) {
    if (const auto tensor = npy_tensor(*leaf.value)) {
      tensors.emplace_back(file_of(leaf.path), *tensor);
    }
  }
  std::set<fs::path> folders{folder};
  for (const auto& [file, tensor] : tensors) {
    fs::path parent = folder;
    for (const fs::path& part : file.parent_path()) folders.insert(parent /= part);
  }
  for (const fs::path& one : folders) {
    std::error_code error;
    fs::create_directories(one, error);
    if (error) {
      throw CheckpointError(
          fmt::format("cannot create the folder '{}': {}", one.string(), error.message()));
    }
  }
  for (const auto& [file, tensor] : tensors) checkpoint::write_npy(folder / file, tensor, files);
  // The names of folders, which are on disk when those above them are synced.
  for (const fs::path& one : folders) files.sync_folder(one);
  files.sync_folder(fs::absolute(folder).parent_path());
}

}  // namespace lockstep::tools
