#include "lockstep/optim/nadam.hpp"

#include <array>
#include <cmath>

namespace lockstep::optim {
namespace {

constexpr std::array<std::string_view, 2> slot_names{"exp_avg", "exp_avg_sq"};
constexpr std::array<std::string_view, 1> scalar_names{"mu_product"};

}  // namespace

std::vector<Field> NAdamOptions::fields() {
  return {{"lr", &lr, Domain::non_negative},
          {"beta1", &beta1, Domain::fraction},
          {"beta2", &beta2, Domain::fraction},
          {"eps", &eps, Domain::positive},
          {"weight_decay", &weight_decay, Domain::non_negative},
          {"momentum_decay", &momentum_decay, Domain::non_negative},
          {"maximize", &maximize}};
}

NAdam::NAdam(const NAdamOptions& options) : BasicRule(options) { NAdam::check(); }

std::span<const std::string_view> NAdam::slots() const { return slot_names; }

std::span<const std::string_view> NAdam::scalars() const { return scalar_names; }

// μₜ = β₁ · (1 - 0.96^(t · momentum_decay) / 2)
// m = β₁ · m + (1 - β₁) · g
// v = β₂ · v + (1 - β₂) · g²
// p = p - lr · ((1 - μₜ) / (1 - Πμ) · g + μₜ₊₁ / (1 - Πμ · μₜ₊₁) · m) / (√(v / (1 - β₂ᵗ)) + ε)
template <class T>
void NAdam::step(const UpdateRange<T>& range) const {
  const double t = static_cast<double>(range.step);
  const auto mu = [this](double step) {
    return options_.beta1 * (1 - 0.5 * std::pow(0.96, step * options_.momentum_decay));
  };
  double& product = range.scalars[0];
  product *= mu(t);
  const T gradient_size = static_cast<T>(options_.lr * (1 - mu(t)) / (1 - product));
  const T average_size = static_cast<T>(options_.lr * mu(t + 1) / (1 - product * mu(t + 1)));
  const T correction = static_cast<T>(1 - std::pow(options_.beta2, t));
  const T beta1 = static_cast<T>(options_.beta1), rest1 = static_cast<T>(1 - options_.beta1);
  const T beta2 = static_cast<T>(options_.beta2), rest2 = static_cast<T>(1 - options_.beta2);
  const T eps = static_cast<T>(options_.eps);
  const T weight_decay = static_cast<T>(options_.weight_decay);
  const T scale = gradient_factor(range);
  for_each<2>(range, [=](T& p, T gradient, T& m, T& v) {
    const T g = scale * gradient + weight_decay * p;
    m = beta1 * m + rest1 * g;
    v = beta2 * v + rest2 * g * g;
    p -= (gradient_size * g + average_size * m) / (std::sqrt(v / correction) + eps);
  });
}

template void NAdam::step(const UpdateRange<float>&) const;
template void NAdam::step(const UpdateRange<double>&) const;
template class BasicRule<NAdam, NAdamOptions>;

}  // namespace lockstep::optim
