#pragma once

#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "lockstep/comm/communicator.hpp"

namespace lockstep::comm {

/// Bytes of other ranks, which this one reads as it needs them, while the others serve(). Messages have
/// any length. One at a time on a communicator.
class Pull {
 public:
  explicit Pull(const Communicator& communicator) : communicator_(communicator) {}

  /// Begins to read bytes of an array of that rank, by its number among those that it serves.
  MPI_Request start(int rank, std::uint64_t array, std::uint64_t offset, std::span<std::byte> into);
  void wait(MPI_Request& request);
  /// The others need not serve any more; to be called once.
  void end();

 private:
  Communicator communicator_;
};

/// Answers what `root` asks for, until it ends that.
void serve(const Communicator& communicator, int root,
           std::span<const std::span<const std::byte>> arrays);

}  // namespace lockstep::comm
