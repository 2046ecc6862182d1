#pragma once

#include <cstdint>
#include <filesystem>

#include "lockstep/train/progress.hpp"

namespace lockstep::tools {

/// The progress of work on the bytes of a file: shown on stderr, where that is a terminal and the
/// work is long.
class ByteProgress {
 public:
  ByteProgress(const std::filesystem::path& file, std::uint64_t bytes);
  void update(std::uint64_t bytes_done);
  void finish() { progress_.finish(); }

 private:
  train::Progress progress_;
};

}  // namespace lockstep::tools
