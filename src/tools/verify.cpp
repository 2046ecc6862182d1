#include "tools/verify.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>

#include "lockstep/checkpoint/checkpoint.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/train/progress.hpp"
#include "tools/text.hpp"

namespace lockstep::tools {
namespace {

// Files below this take no time that a person would notice.
constexpr std::uint64_t long_work = std::uint64_t{64} << 20;
constexpr std::uint64_t mebibyte = std::uint64_t{1} << 20;

checkpoint::FileInfo verify_with_progress(const std::filesystem::path& file) {
  const std::uint64_t bytes = checkpoint::file_info(file).bytes;
  train::Progress progress(file.filename().string(), static_cast<std::int64_t>(bytes / mebibyte),
                           {.enabled = bytes >= long_work && isatty(STDERR_FILENO) != 0,
                            .stream = stderr,
                            .unit = "MiB"});
  const checkpoint::FileInfo info = checkpoint::verify_file(file, [&](std::uint64_t done) {
    progress.update(static_cast<std::int64_t>(done / mebibyte));
  });
  progress.finish();
  return info;
}

}  // namespace

bool verify(const std::vector<std::filesystem::path>& files) {
  bool good = true;
  for (const std::filesystem::path& file : files) {
    try {
      const checkpoint::FileInfo info = verify_with_progress(file);
      fmt::print("ok  {}  {}, {} bytes\n", file.string(), count_text(info.tensors, "tensor"),
                 info.bytes);
    } catch (const Error& error) {
      good = false;
      std::fflush(stdout);  // what people see is in the order of the files
      fmt::print(stderr, "error: {}\n", error.what());
    }
  }
  return good;
}

}  // namespace lockstep::tools
