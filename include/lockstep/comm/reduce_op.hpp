#pragma once

#include <cstdint>

#pragma GCC visibility push(default)

namespace lockstep {

/// How a reduction combines the numbers of all ranks. The mean is the sum divided by the number of
/// ranks; of integers there is none. Sums of integers wrap.
enum class ReduceOp : std::uint8_t { sum, max, min, mean };

}  // namespace lockstep

#pragma GCC visibility pop
