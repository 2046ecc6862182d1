#pragma once

#include "lockstep/comm/communicator.hpp"

namespace lockstep {

/// Begins the timeline that LOCKSTEP_TIMELINE names on all ranks, where none is being recorded.
/// Collective.
void start_environment_timeline(const Communicator& communicator);

}  // namespace lockstep
