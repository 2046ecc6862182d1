#pragma once

#include <cstdint>

#pragma GCC visibility push(default)

namespace lockstep {

/// Where part p of n items that are cut into `parts` begins, ⌊n·p / parts⌋; n·p need not fit in 64
/// bits.
constexpr std::int64_t part_begin(std::int64_t n, std::int64_t p, std::int64_t parts) noexcept {
  return n / parts * p + n % parts * p / parts;
}

}  // namespace lockstep

#pragma GCC visibility pop
