#include "lockstep/optim/update_rule.hpp"

#include <cmath>

#include "tensor/kernels.hpp"

namespace lockstep::optim {

template <class T>
double norm(std::span<const T> numbers) {
  return std::sqrt(kernels::sum_squares(static_cast<std::int64_t>(numbers.size()), numbers.data()));
}

template double norm(std::span<const float>);
template double norm(std::span<const double>);

}  // namespace lockstep::optim
