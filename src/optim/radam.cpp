#include "lockstep/optim/radam.hpp"

#include <array>
#include <cmath>

namespace lockstep::optim {
namespace {

constexpr std::array<std::string_view, 2> slot_names{"exp_avg", "exp_avg_sq"};

}  // namespace

std::vector<Field> RAdamOptions::fields() {
  return {{"lr", &lr, Domain::non_negative},
          {"beta1", &beta1, Domain::fraction},
          {"beta2", &beta2, Domain::fraction},
          {"eps", &eps, Domain::positive},
          {"weight_decay", &weight_decay, Domain::non_negative},
          {"maximize", &maximize}};
}

RAdam::RAdam(const RAdamOptions& options) : BasicRule(options) { RAdam::check(); }

std::span<const std::string_view> RAdam::slots() const { return slot_names; }

// m = β₁ · m + (1 - β₁) · g
// v = β₂ · v + (1 - β₂) · g²
// ρ∞ = 2 / (1 - β₂) - 1,  ρ = ρ∞ - 2 t β₂ᵗ / (1 - β₂ᵗ)
// p = p - lr / (1 - β₁ᵗ) · m · r,  where r = 1 for ρ ≤ 5, and else
// r = √((ρ - 4) (ρ - 2) ρ∞ / ((ρ∞ - 4) (ρ∞ - 2) ρ)) · √(1 - β₂ᵗ) / (√v + ε)
template <class T>
void RAdam::step(const UpdateRange<T>& range) const {
  const double t = static_cast<double>(range.step);
  const double correction1 = 1 - std::pow(options_.beta1, t);
  const double power2 = std::pow(options_.beta2, t);
  const double longest = 2 / (1 - options_.beta2) - 1;
  const double length = longest - 2 * t * power2 / (1 - power2);
  const T beta1 = static_cast<T>(options_.beta1), rest1 = static_cast<T>(1 - options_.beta1);
  const T beta2 = static_cast<T>(options_.beta2), rest2 = static_cast<T>(1 - options_.beta2);
  const T eps = static_cast<T>(options_.eps);
  const T weight_decay = static_cast<T>(options_.weight_decay);
  const T scale = gradient_factor(range);
  const auto average = [=](T g, T& m, T& v) {
    m = beta1 * m + rest1 * g;
    v = beta2 * v + rest2 * g * g;
  };
  if (length <= 5) {
    const T step_size = static_cast<T>(options_.lr / correction1);
    return for_each<2>(range, [=](T& p, T gradient, T& m, T& v) {
      average(scale * gradient + weight_decay * p, m, v);
      p -= step_size * m;
    });
  }
  const double rectified =
      std::sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length));
  const T step_size = static_cast<T>(options_.lr / correction1 * rectified * std::sqrt(1 - power2));
  for_each<2>(range, [=](T& p, T gradient, T& m, T& v) {
    average(scale * gradient + weight_decay * p, m, v);
    p -= step_size * m / (std::sqrt(v) + eps);
  });
}

template void RAdam::step(const UpdateRange<float>&) const;
template void RAdam::step(const UpdateRange<double>&) const;
template class BasicRule<RAdam, RAdamOptions>;

}  // namespace lockstep::optim
