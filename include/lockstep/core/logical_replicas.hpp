#pragma once

#include <cstdint>

#pragma GCC visibility push(default)

namespace lockstep {

/// OptionError unless the number of logical replicas is 0, for none, or a power of two that is at
/// least the number of ranks.
void check_logical_replicas(std::int64_t replicas, int ranks);

}  // namespace lockstep

#pragma GCC visibility pop
