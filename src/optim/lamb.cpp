#include "lockstep/optim/lamb.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "tensor/kernels.hpp"

namespace lockstep::optim {
namespace {

constexpr std::array<std::string_view, 2> slot_names{"exp_avg", "exp_avg_sq"};

}  // namespace

std::vector<Field> LAMBOptions::fields() {
  return {{"lr", &lr, Domain::non_negative},
          {"beta1", &beta1, Domain::fraction},
          {"beta2", &beta2, Domain::fraction},
          {"eps", &eps, Domain::positive},
          {"weight_decay", &weight_decay, Domain::non_negative},
          {"adapt", &adapt},
          {"maximize", &maximize}};
}

LAMB::LAMB(const LAMBOptions& options) : BasicRule(options) { LAMB::check(); }

std::span<const std::string_view> LAMB::slots() const { return slot_names; }

// m = β₁ · m + (1 - β₁) · g
// v = β₂ · v + (1 - β₂) · g²
// r = m / (1 - β₁ᵗ) / (√(v / (1 - β₂ᵗ)) + ε) + weight_decay · p
// p = p - lr · ‖p‖ / ‖r‖ · r, where the ratio is 1 if either norm is 0
template <class T>
void LAMB::step(const UpdateRange<T>& range) const {
  const double t = static_cast<double>(range.step);
  const T correction1 = static_cast<T>(1 - std::pow(options_.beta1, t));
  const T correction2 = static_cast<T>(1 - std::pow(options_.beta2, t));
  const T beta1 = static_cast<T>(options_.beta1), rest1 = static_cast<T>(1 - options_.beta1);
  const T beta2 = static_cast<T>(options_.beta2), rest2 = static_cast<T>(1 - options_.beta2);
  const T eps = static_cast<T>(options_.eps);
  const T weight_decay = static_cast<T>(options_.weight_decay);
  const T scale = gradient_factor(range);
  for_each<2>(range, [=](T&, T gradient, T& m, T& v) {
    const T g = scale * gradient;
    m = beta1 * m + rest1 * g;
    v = beta2 * v + rest2 * g * g;
  });

  const auto direction = [=](T p, T m, T v) {
    return m / correction1 / (std::sqrt(v / correction2) + eps) + weight_decay * p;
  };
  double trust = 1;
  if (options_.adapt) {
    const double value = norm<T>(range.value);
    double squares = 0;
    std::array<T, 1024> block;
    for (std::size_t begin = 0; begin < range.value.size(); begin += block.size()) {
      const std::size_t count = std::min(block.size(), range.value.size() - begin);
      for (std::size_t i = 0; i < count; ++i) {
        const std::size_t at = begin + i;
        block[i] = direction(range.value[at], range.slots[0][at], range.slots[1][at]);
      }
      squares += kernels::sum_squares(static_cast<std::int64_t>(count), block.data());
    }
    if (value > 0 && squares > 0) trust = value / std::sqrt(squares);
  }
  const T step_size = static_cast<T>(options_.lr * trust);
  for_each<2>(range, [=](T& p, T, T& m, T& v) { p -= step_size * direction(p, m, v); });
}

template void LAMB::step(const UpdateRange<float>&) const;
template void LAMB::step(const UpdateRange<double>&) const;
template class BasicRule<LAMB, LAMBOptions>;

}  // namespace lockstep::optim
