#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/file_system.hpp"
#include "lockstep/state/state_dict.hpp"
#include "tools/state_tree.hpp"

// States as NPY files, of one tensor each.
namespace lockstep::tools {

/// A tensor, or a number as one without axes, a bool as 0 or 1 in u8; nothing for anything else.
std::optional<Tensor> npy_tensor(const StateValue& value);

/// A value of a state that is no dict or list, or an empty one.
struct Leaf {
  Json path;  ///< keys and indices
  const StateValue* value;
};
std::vector<Leaf> leaves(const StateDict& state);

/// A path as it is given on the command line: with '/' between keys and indices.
std::string path_text(const Json& path);

/// Writes each leaf that is a tensor or number to a file of its own, `folder`/model/0.weight.npy for
/// the path model/0.weight. NameError for a name that no file can have; CheckpointError where one
/// cannot be written, and the others are then written or not.
void write_npy_folder(const std::filesystem::path& folder, const std::vector<Leaf>& leaves,
                      checkpoint::FileSystem& files);

}  // namespace lockstep::tools
