#include "lockstep/optim/adamax.hpp"

#include <algorithm>
#include <array>
#include <cmath>

namespace lockstep::optim {
namespace {

constexpr std::array<std::string_view, 2> slot_names{"exp_avg", "exp_inf"};

}  // namespace

std::vector<Field> AdamaxOptions::fields() {
  return {{"lr", &lr, Domain::non_negative},
          {"beta1", &beta1, Domain::fraction},
          {"beta2", &beta2, Domain::fraction},
          {"eps", &eps, Domain::positive},
          {"weight_decay", &weight_decay, Domain::non_negative},
          {"maximize", &maximize}};
}

Adamax::Adamax(const AdamaxOptions& options) : BasicRule(options) { Adamax::check(); }

std::span<const std::string_view> Adamax::slots() const { return slot_names; }

// m = β₁ · m + (1 - β₁) · g
// u = max(β₂ · u, |g| + ε)
// p = p - lr / (1 - β₁ᵗ) · m / u
template <class T>
void Adamax::step(const UpdateRange<T>& range) const {
  const double t = static_cast<double>(range.step);
  const T step_size = static_cast<T>(options_.lr / (1 - std::pow(options_.beta1, t)));
  const T beta1 = static_cast<T>(options_.beta1), rest1 = static_cast<T>(1 - options_.beta1);
  const T beta2 = static_cast<T>(options_.beta2);
  const T eps = static_cast<T>(options_.eps);
  const T weight_decay = static_cast<T>(options_.weight_decay);
  const T scale = gradient_factor(range);
  for_each<2>(range, [=](T& p, T gradient, T& m, T& u) {
    const T g = scale * gradient + weight_decay * p;
    m = beta1 * m + rest1 * g;
    u = std::max(beta2 * u, std::abs(g) + eps);
    p -= step_size * m / u;
  });
}

template void Adamax::step(const UpdateRange<float>&) const;
template void Adamax::step(const UpdateRange<double>&) const;
template class BasicRule<Adamax, AdamaxOptions>;

}  // namespace lockstep::optim
