#include "checkpoint/input_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "lockstep/core/error.hpp"

namespace lockstep::checkpoint {

InputFile::InputFile(std::string kind, std::filesystem::path path)
    : kind_(std::move(kind)), path_(std::move(path)) {
  std::error_code error;
  const auto status = std::filesystem::status(path_, error);
  if (status.type() == std::filesystem::file_type::not_found) fail("there is no such file");
  if (status.type() == std::filesystem::file_type::none) fail(error.message());
  if (!std::filesystem::is_regular_file(status)) fail("it is not a regular file");
  do {
    descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  } while (descriptor_ < 0 && errno == EINTR);
  struct stat found {};
  if (descriptor_ < 0 || ::fstat(descriptor_, &found) != 0) {
    const std::string reason = std::generic_category().message(errno);
    if (descriptor_ >= 0) ::close(descriptor_);
    fail(fmt::format("it cannot be opened for reading: {}", reason));
  }
  size_ = static_cast<std::uint64_t>(found.st_size);
  identity_ = {.device = static_cast<std::int64_t>(found.st_dev),
               .number = static_cast<std::int64_t>(found.st_ino)};
}

InputFile::~InputFile() { ::close(descriptor_); }

void InputFile::read(std::uint64_t offset, void* bytes, std::uint64_t size) const {
  constexpr std::uint64_t most = std::uint64_t{1} << 30;
  for (std::uint64_t done = 0; done < size;) {
    const ssize_t some = ::pread(descriptor_, static_cast<char*>(bytes) + done,
                                 std::min(size - done, most), static_cast<off_t>(offset + done));
    if (some < 0 && errno == EINTR) continue;
    if (some <= 0) fail(fmt::format("reading {} bytes at {} failed", size, offset));
    done += static_cast<std::uint64_t>(some);
  }
}

void InputFile::fail(const std::string& why) const {
  throw CheckpointError(fmt::format("the {} '{}' cannot be used: {}", kind_, path_.string(), why));
}

}  // namespace lockstep::checkpoint
