#include "core/squares.hpp"

#include <array>

namespace lockstep {

template <class T>
double block_squares(std::size_t n, const T* x) {
  constexpr std::size_t lanes = 16;
  std::array<double, lanes> sums{};
  const auto add = [&](std::size_t lane, T number) {
    sums[lane] += static_cast<double>(number) * static_cast<double>(number);
  };
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    for (std::size_t lane = 0; lane < lanes; ++lane) add(lane, x[i + lane]);
  }
  for (std::size_t lane = 0; i + lane < n; ++lane) add(lane, x[i + lane]);
  for (std::size_t half = lanes / 2; half > 0; half /= 2) {
    for (std::size_t lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  }
  return sums[0];
}

template double block_squares<float>(std::size_t, const float*);
template double block_squares<double>(std::size_t, const double*);

}  // namespace lockstep
