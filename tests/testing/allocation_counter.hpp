#pragma once

#include <cstddef>

// What this program takes by new, whose operators testing/allocation_counter.cpp replaces.

namespace lockstep::testing {

/// By this thread, so far.
std::size_t& allocated_bytes();

/// How many allocations of this thread go well before one fails.
std::size_t& allocations_left();

}  // namespace lockstep::testing
