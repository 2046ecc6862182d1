#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>

namespace lockstep::checkpoint {

/// A file being written. Every call throws CheckpointError with the path and the system's reason.
class OutputFile {
 public:
  virtual ~OutputFile() = default;
  virtual void write(const void* bytes, std::size_t size) = 0;
  /// Returns when what was written is on disk.
  virtual void sync() = 0;
};

/// All that is done to files when a checkpoint is written, so that a test can make any of it fail.
class FileSystem {
 public:
  virtual ~FileSystem() = default;
  virtual std::unique_ptr<OutputFile> create(const std::filesystem::path& path) = 0;
  virtual void rename(const std::filesystem::path& from, const std::filesystem::path& to) = 0;
  /// Returns when the names in a folder are on disk.
  virtual void sync_folder(const std::filesystem::path& folder) = 0;
  virtual void remove(const std::filesystem::path& path) noexcept = 0;
};

/// The operating system's.
std::unique_ptr<FileSystem> posix_file_system();

/// Lets `write` fill a temporary file beside `path`, syncs it, renames it to `path` and syncs the
/// folder. Where any of that throws, the temporary file is gone, and `path` is as it was, or, where
/// only the folder could not be synced, the new file.
void replace_file(const std::filesystem::path& path, FileSystem& files,
                  const std::function<void(OutputFile&)>& write);

}  // namespace lockstep::checkpoint
