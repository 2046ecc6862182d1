#include "checkpoint/file_system.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "lockstep/core/error.hpp"

namespace lockstep::checkpoint {
namespace {

[[noreturn]] void fail(const char* action, const std::filesystem::path& path) {
  throw CheckpointError(fmt::format("cannot {} '{}': {}", action, path.string(),
                                    std::generic_category().message(errno)));
}

// Repeats a call that a signal has interrupted.
template <class Call>
auto uninterrupted(const Call& call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

class Descriptor {
 public:
  Descriptor(const char* action, const std::filesystem::path& path, int flags)
      : descriptor_(uninterrupted([&] { return ::open(path.c_str(), flags | O_CLOEXEC, 0666); })) {
    if (descriptor_ < 0) fail(action, path);
  }
  ~Descriptor() { ::close(descriptor_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  operator int() const noexcept { return descriptor_; }

 private:
  int descriptor_;
};

int sync_descriptor(int descriptor) {
  return uninterrupted([descriptor] { return ::fsync(descriptor); });
}

class PosixFile : public OutputFile {
 public:
  explicit PosixFile(const std::filesystem::path& path)
      : path_(path), descriptor_("create", path, O_WRONLY | O_CREAT | O_TRUNC) {}

  void write(const void* bytes, std::size_t size) override {
    const char* next = static_cast<const char*>(bytes);
    while (size > 0) {
      const ssize_t written =
          uninterrupted([&] { return ::write(descriptor_, next, std::min(size, step)); });
      if (written < 0) fail("write", path_);
      next += written;
      size -= static_cast<std::size_t>(written);
      written_ += written;
      start_writeback();
    }
  }

  void sync() override {
    if (sync_descriptor(descriptor_) != 0) fail("sync", path_);
  }

 private:
  static constexpr std::size_t step = std::size_t{8} << 20;

  // The disk works while what follows is written, and not only from sync() on. It is sync() that tells
  // whether it could.
  void start_writeback() noexcept {
#if defined(__linux__)
    if (written_ - started_ < static_cast<off_t>(step)) return;
    ::sync_file_range(descriptor_, started_, written_ - started_, SYNC_FILE_RANGE_WRITE);
    started_ = written_;
#endif
  }

  std::filesystem::path path_;
  Descriptor descriptor_;
  off_t written_ = 0, started_ = 0;
};

class PosixFileSystem : public FileSystem {
 public:
  std::unique_ptr<OutputFile> create(const std::filesystem::path& path) override {
    return std::make_unique<PosixFile>(path);
  }
  void rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
    if (std::rename(from.c_str(), to.c_str()) != 0) fail("replace", to);
  }
  void sync_folder(const std::filesystem::path& folder) override {
    const Descriptor descriptor("open", folder, O_RDONLY | O_DIRECTORY);
    // Some file systems cannot sync a folder, and say so by EINVAL.
    if (sync_descriptor(descriptor) != 0 && errno != EINVAL) fail("sync", folder);
  }
  void remove(const std::filesystem::path& path) noexcept override { ::unlink(path.c_str()); }
};

}  // namespace

std::unique_ptr<FileSystem> posix_file_system() { return std::make_unique<PosixFileSystem>(); }

void replace_file(const std::filesystem::path& path, FileSystem& files,
                  const std::function<void(OutputFile&)>& write) {
  std::filesystem::path temporary = path;
  temporary += ".tmp";
  try {
    {
      const std::unique_ptr<OutputFile> file = files.create(temporary);
      write(*file);
      file->sync();
    }
    files.rename(temporary, path);
  } catch (...) {
    files.remove(temporary);
    throw;
  }
  files.sync_folder(path.has_parent_path() ? path.parent_path() : std::filesystem::path("."));
}

}  // namespace lockstep::checkpoint
