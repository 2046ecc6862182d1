#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "data/temporary_folder.hpp"
#include "lockstep/testing/mpi_test.hpp"

namespace lockstep::testing {

/// A folder of rank 0's that all ranks use, and that goes when all have left it. Collective.
class SharedFolder {
 public:
  explicit SharedFolder(const Communicator& ranks = world()) : ranks_(ranks) {
    if (ranks_.rank() == 0) path_ = (folder_.emplace() / "").string();
    ranks_.broadcast(path_);
  }
  ~SharedFolder() { ranks_.barrier(); }

  std::filesystem::path operator/(std::string_view name) const {
    return std::filesystem::path(path_) / name;
  }
  /// Writes a file on rank 0.
  void write(std::string_view name, std::string_view bytes) const {
    if (ranks_.rank() == 0) write_bytes(*this / name, bytes);
    ranks_.barrier();
  }

 private:
  Communicator ranks_;
  std::optional<TemporaryFolder> folder_;
  std::string path_;
};

}  // namespace lockstep::testing
