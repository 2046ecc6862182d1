#include "tools/verify.hpp"

#include <fmt/format.h>

#include <cstdint>
#include <cstdio>

#include "lockstep/checkpoint/checkpoint.hpp"
#include "lockstep/core/error.hpp"
#include "tools/byte_progress.hpp"
#include "tools/text.hpp"

namespace lockstep::tools {
namespace {

checkpoint::FileInfo verify_with_progress(const std::filesystem::path& file) {
  ByteProgress progress(file, checkpoint::file_info(file).bytes);
  const checkpoint::FileInfo info =
      checkpoint::verify_file(file, [&](std::uint64_t done) { progress.update(done); });
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
