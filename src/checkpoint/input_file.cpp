#include "checkpoint/input_file.hpp"

#include <fmt/format.h>

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
  size_ = std::filesystem::file_size(path_, error);
  errno = 0;
  stream_.open(path_, std::ios::binary);
  if (!stream_) error.assign(errno, std::generic_category());
  if (error || !stream_) {
    fail(fmt::format("it cannot be opened for reading: {}", error.message()));
  }
}

void InputFile::read(std::uint64_t offset, void* bytes, std::uint64_t size) {
  stream_.seekg(static_cast<std::streamoff>(offset));
  stream_.read(static_cast<char*>(bytes), static_cast<std::streamsize>(size));
  if (!stream_) fail(fmt::format("reading {} bytes at {} failed", size, offset));
}

void InputFile::fail(const std::string& why) const {
  throw CheckpointError(fmt::format("the {} '{}' cannot be used: {}", kind_, path_.string(), why));
}

}  // namespace lockstep::checkpoint
