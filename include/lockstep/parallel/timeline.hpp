#pragma once

#include <string>

#include "lockstep/comm/communicator.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

/// Writes to `file` from now on what each rank does when: forward and backward, the reduction of each
/// bucket, waiting for others, and steps of optimizers; see core/timeline.hpp. A file that is there
/// is replaced. Where ranks do not share a file system, each machine has a file of its ranks.
/// Collective. DataError on all ranks where a file cannot be written, StateError where a timeline is
/// being recorded. timeline::stop() ends it, on each rank by itself.
///
/// The first DataParallel or GradientReducer of a program does this for the file that the
/// environment variable LOCKSTEP_TIMELINE names, unless a timeline is being recorded then. Groups of
/// ranks would replace each other's file: the first one is to be on a communicator of all ranks.
void start_timeline(const std::string& file, const Communicator& communicator);

}  // namespace lockstep

#pragma GCC visibility pop
