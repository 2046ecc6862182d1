#pragma once

#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "lockstep/testing/mpi_test.hpp"

namespace lockstep::testing {

/// Lets the next save to a file wait until end(), and then fail: a pipe cannot be synced. Collective.
class SlowWrite {
 public:
  explicit SlowWrite(const std::filesystem::path& file) : pipe_(file.string() + ".tmp") {
    if (world().rank() == 0) {
      EXPECT_EQ(::mkfifo(pipe_.c_str(), 0600), 0);
    }
    world().barrier();
  }

  /// Not collective.
  void end() const {
    if (world().rank() != 0) return;
    std::ifstream stream(pipe_, std::ios::binary);
    char bytes[4096];
    while (stream.read(bytes, sizeof bytes)) {
    }
  }

  const std::string& pipe() const noexcept { return pipe_; }

 private:
  std::string pipe_;
};

}  // namespace lockstep::testing
