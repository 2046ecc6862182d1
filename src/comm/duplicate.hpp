#pragma once

#include <mpi.h>

#include <memory>
#include <optional>
#include <vector>

#include "comm/calls.hpp"
#include "comm/kept_communicator.hpp"
#include "lockstep/comm/communicator.hpp"

namespace lockstep {

/// What all handles of a communicator share.
struct Communicator::Duplicate {
  CommunicatorOptions options;
  int rank = 0;
  int size = 1;
  std::optional<Placement> placement;  // once it was asked for
  std::shared_ptr<comm::KeptCommunicator> kept = std::make_shared<comm::KeptCommunicator>();
  // Of each duplicate of this one, until it is freed.
  std::vector<std::shared_ptr<comm::KeptCommunicator>> children;
  std::unique_ptr<comm::Calls> calls;  // from the first one on

  explicit Duplicate(const CommunicatorOptions& options) : options(options) {}
  /// Collective over `original`.
  void make(MPI_Comm original);
  /// To call MPI on; StateError where that is not possible.
  MPI_Comm open() const;
};

}  // namespace lockstep
