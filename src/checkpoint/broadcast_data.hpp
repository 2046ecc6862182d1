#pragma once

#include <string>

#include "checkpoint/file.hpp"
#include "checkpoint/scatter.hpp"
#include "lockstep/comm/communicator.hpp"

namespace lockstep::checkpoint {

/// Gives each rank what it takes of the data of a file, which rank 0 has opened: `file` is nullptr on the others.
/// Of much data, those of its node read some as well where they find the same file. Collective; throws on all
/// ranks what is wrong with the data.
void broadcast_data(const Communicator& communicator, const std::string& path, FileReader* file,
                    Scattered& state);

}  // namespace lockstep::checkpoint
