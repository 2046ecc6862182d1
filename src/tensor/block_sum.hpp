#pragma once

#include <algorithm>
#include <cstdint>

namespace lockstep::kernels {

/// Sum of f(i) over 0 ≤ i < n, in blocks of fixed size, the sums of which are added up in double precision. That of a block
/// is of type S, and of as many partial sums as 64 bytes hold numbers of T.
template <class T, class S, class F>
double sum_blocks(std::int64_t n, F f) {
  constexpr std::int64_t block = 1024, lanes = 64 / static_cast<std::int64_t>(sizeof(T));
  double total = 0;
  for (std::int64_t i = 0; i < n;) {
    const std::int64_t end = std::min(i + block, n);
    S partial[lanes] = {};
    for (; i + lanes <= end; i += lanes) {
      for (std::int64_t lane = 0; lane < lanes; ++lane) partial[lane] += f(i + lane);
    }
    for (std::int64_t lane = 0; i < end; ++i, ++lane) partial[lane] += f(i);
    S of_block = 0;
    for (const S value : partial) of_block += value;
    total += static_cast<double>(of_block);
  }
  return total;
}

}  // namespace lockstep::kernels
