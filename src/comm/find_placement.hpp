#pragma once

#include <mpi.h>

#include <optional>

#include "lockstep/comm/placement.hpp"

namespace lockstep::comm {

/// Collective. Ranks of one machine that give different numbers count as on different nodes.
Placement find_placement(MPI_Comm communicator, std::optional<int> node);

}  // namespace lockstep::comm
