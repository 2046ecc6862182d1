#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint/file_system.hpp"
#include "checkpoint/format.hpp"

namespace lockstep::checkpoint {

/// Writes to a temporary file beside `path`, syncs it, renames it to `path` and syncs the folder.
/// Throws CheckpointError; then the temporary file is gone, and `path` is as it was, or, where only
/// the folder could not be synced, the new file.
void write_state(const std::filesystem::path& path, const FlatState& state, const Header& header,
                 FileSystem& files);

struct FileContents {
  Header header;
  std::vector<Tensor> tensors;
};

/// Reads a file and verifies every checksum. CheckpointError, with the path and what is wrong.
FileContents read_contents(const std::filesystem::path& path);

}  // namespace lockstep::checkpoint
