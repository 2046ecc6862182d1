#pragma once

#include "lockstep/comm/communicator.hpp"

namespace lockstep::comm {

/// Collective. Ranks of one machine that give different numbers as options().node count as on different nodes.
Placement find_placement(const Communicator& ranks);

}  // namespace lockstep::comm
