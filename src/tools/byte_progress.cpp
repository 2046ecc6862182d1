#include "tools/byte_progress.hpp"

#include <unistd.h>

#include <cstdio>

namespace lockstep::tools {
namespace {

// Files below this take no time that a person would notice.
constexpr std::uint64_t long_work = std::uint64_t{64} << 20;
constexpr std::uint64_t mebibyte = std::uint64_t{1} << 20;

}  // namespace

ByteProgress::ByteProgress(const std::filesystem::path& file, std::uint64_t bytes)
    : progress_(file.filename().string(), static_cast<std::int64_t>(bytes / mebibyte),
                {.enabled = bytes >= long_work && isatty(STDERR_FILENO) != 0,
                 .stream = stderr,
                 .unit = "MiB"}) {}

void ByteProgress::update(std::uint64_t bytes_done) {
  progress_.update(static_cast<std::int64_t>(bytes_done / mebibyte));
}

}  // namespace lockstep::tools
