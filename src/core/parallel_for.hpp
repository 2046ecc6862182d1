#pragma once

#include <cstdint>

namespace lockstep {

namespace detail {
void parallel_for(std::int64_t n, void (*call)(void* f, std::int64_t begin, std::int64_t end),
                  void* f);
}

/// Multiplications that take longer than it takes to tell other threads of them.
constexpr std::int64_t least_for_threads = 200'000;

/// Calls f(begin, end) for at most threads() ranges that make up 0 ≤ i < n, each on a thread of its own, the first on this one,
/// and returns when all have returned. An exception of one is thrown here. Within f, and while another thread of
/// the host is at it, there is one range.
template <class F>
void parallel_for(std::int64_t n, F f) {
  detail::parallel_for(
      n,
      [](void* function, std::int64_t begin, std::int64_t end) {
        (*static_cast<F*>(function))(begin, end);
      },
      &f);
}

}  // namespace lockstep
