#include "train/files.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <system_error>

#include "lockstep/core/error.hpp"

namespace lockstep::train {

void throw_system_error(const std::filesystem::path& path, const char* what) {
  throw Error(fmt::format("{}: cannot {}: {}", path.string(), what,
                          std::generic_category().message(errno)));
}

std::string read_file(const std::filesystem::path& path) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rbe"),
                                                             &std::fclose);
  if (!file) throw_system_error(path, "open it");
  std::string bytes;
  std::array<char, 16384> chunk;
  while (const std::size_t count = std::fread(chunk.data(), 1, chunk.size(), file.get())) {
    bytes.append(chunk.data(), count);
  }
  if (std::ferror(file.get()) != 0) throw_system_error(path, "read it");
  return bytes;
}

bool write_all(int descriptor, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(descriptor, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
  return true;
}

void replace_file(const std::filesystem::path& path, std::string_view bytes) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    throw Error(fmt::format("{}: cannot write it: not a regular file", path.string()));
  }
  const std::string temporary = path.string() + ".tmp";
  const int descriptor = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor < 0) throw_system_error(temporary, "create it");
  bool done = write_all(descriptor, bytes) && ::fsync(descriptor) == 0;
  int reason = errno;
  if (::close(descriptor) != 0 && done) {
    reason = errno;
    done = false;
  }
  if (done && ::rename(temporary.c_str(), path.c_str()) != 0) {
    reason = errno;
    done = false;
  }
  if (done) return;
  ::unlink(temporary.c_str());
  errno = reason;
  throw_system_error(path, "write it");
}

}  // namespace lockstep::train
