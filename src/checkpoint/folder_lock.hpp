#pragma once

#include <filesystem>

namespace lockstep::checkpoint {

/// Holds a folder against other processes, and other objects in this one, by flock() on its file
/// `.lock`, in which is who holds it. The system lets go of it when the process ends, however it ends;
/// the file stays.
class FolderLock {
 public:
  /// CheckpointError where another has it, with the process and host that does; and where the file
  /// system has no locks.
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

  /// CheckpointError where the folder is not the one that was locked: it was removed or replaced.
  void check() const;

 private:
  void lock();

  std::filesystem::path folder_;
  int descriptor_;
};

}  // namespace lockstep::checkpoint
