#include "checkpoint/folder_lock.hpp"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <ctime>
#include <string>
#include <system_error>

#include "lockstep/core/error.hpp"

namespace lockstep::checkpoint {
namespace {

std::string last_error() { return std::generic_category().message(errno); }

std::string describe_this_process() {
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  return fmt::format("process {} on host {} since {:%Y-%m-%d %H:%M:%S} UTC", getpid(), host.data(),
                     fmt::gmtime(std::time(nullptr)));
}

}  // namespace

FolderLock::FolderLock(const std::filesystem::path& folder)
    : folder_(folder),
      descriptor_(::open((folder / ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
  if (descriptor_ < 0) {
    throw CheckpointError(
        fmt::format("cannot create '{}': {}", (folder / ".lock").string(), last_error()));
  }
  try {
    lock();
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

FolderLock::~FolderLock() { ::close(descriptor_); }

void FolderLock::lock() {
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) {
      throw CheckpointError(
          fmt::format("the folder '{}' cannot be locked: {}; where its file system has no locks, "
                      "CheckpointManagerOptions::lock = false does without",
                      folder_.string(), last_error()));
    }
    std::array<char, 512> owner{};
    const bool known = ::pread(descriptor_, owner.data(), owner.size() - 1, 0) > 0;
    throw CheckpointError(fmt::format("the folder '{}' is in use by {}", folder_.string(),
                                      known ? owner.data() : "another process"));
  }
  check();
  const std::string owner = describe_this_process();
  // Only a message needs it, so a full disk is no reason to refuse.
  if (::ftruncate(descriptor_, 0) == 0) {
    [[maybe_unused]] const ssize_t written = ::pwrite(descriptor_, owner.data(), owner.size(), 0);
  }
}

void FolderLock::check() const {
  struct stat locked {
  }, there{};
  if (::fstat(descriptor_, &locked) == 0 && ::stat((folder_ / ".lock").c_str(), &there) == 0 &&
      locked.st_dev == there.st_dev && locked.st_ino == there.st_ino) {
    return;
  }
  throw CheckpointError(
      fmt::format("the folder '{}', or its file .lock, was removed or replaced while it was in use",
                  folder_.string()));
}

}  // namespace lockstep::checkpoint
