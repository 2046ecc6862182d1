#include "lockstep/optim/adam.hpp"

#include <algorithm>
#include <array>
#include <cmath>

namespace lockstep::optim {
namespace {

constexpr std::array<std::string_view, 3> slot_names{"exp_avg", "exp_avg_sq", "max_exp_avg_sq"};

// g = ∇f + coupled_decay · p
// p = decay · p
// m = β₁ · m + (1 - β₁) · g
// v = β₂ · v + (1 - β₂) · g²
// v̂ = amsgrad ? max(v̂, v) : v
// p = p - lr / (1 - β₁ᵗ) · m / (√v̂ / √(1 - β₂ᵗ) + ε), where the one division by √(1 - β₂ᵗ) is done beforehand
template <class T, class Options>
void adam_step(const UpdateRange<T>& range, const Options& options, T scale, double coupled_decay,
               double decay) {
  const double t = static_cast<double>(range.step);
  const double correction = std::sqrt(1 - std::pow(options.beta2, t));
  const T step_size = static_cast<T>(correction * options.lr / (1 - std::pow(options.beta1, t)));
  const T beta1 = static_cast<T>(options.beta1), rest1 = static_cast<T>(1 - options.beta1);
  const T beta2 = static_cast<T>(options.beta2), rest2 = static_cast<T>(1 - options.beta2);
  const T eps = static_cast<T>(correction * options.eps);
  const T coupled = static_cast<T>(coupled_decay), kept = static_cast<T>(decay);
  const auto average = [=](T g, T& m, T& v) {
    m = beta1 * m + rest1 * g;
    v = beta2 * v + rest2 * g * g;
  };
  if (options.amsgrad) {
    return for_each<3>(range, [=](T& p, T gradient, T& m, T& v, T& largest) {
      average(scale * gradient + coupled * p, m, v);
      largest = std::max(largest, v);
      p = kept * p - step_size * m / (std::sqrt(largest) + eps);
    });
  }
  for_each<2>(range, [=](T& p, T gradient, T& m, T& v) {
    average(scale * gradient + coupled * p, m, v);
    p = kept * p - step_size * m / (std::sqrt(v) + eps);
  });
}

}  // namespace

std::vector<Field> AdamOptions::fields() {
  return {{"lr", &lr, Domain::non_negative},
          {"beta1", &beta1, Domain::fraction},
          {"beta2", &beta2, Domain::fraction},
          {"eps", &eps, Domain::positive},
          {"weight_decay", &weight_decay, Domain::non_negative},
          {"amsgrad", &amsgrad},
          {"maximize", &maximize}};
}

Adam::Adam(const AdamOptions& options) : BasicRule(options) { Adam::check(); }

std::span<const std::string_view> Adam::slots() const {
  return std::span(slot_names).first(options_.amsgrad ? 3 : 2);
}

template <class T>
void Adam::step(const UpdateRange<T>& range) const {
  adam_step(range, options_, gradient_factor(range), options_.weight_decay, 1.0);
}

std::vector<Field> AdamWOptions::fields() {
  return {{"lr", &lr, Domain::non_negative},
          {"beta1", &beta1, Domain::fraction},
          {"beta2", &beta2, Domain::fraction},
          {"eps", &eps, Domain::positive},
          {"weight_decay", &weight_decay, Domain::non_negative},
          {"amsgrad", &amsgrad},
          {"maximize", &maximize}};
}

AdamW::AdamW(const AdamWOptions& options) : BasicRule(options) { AdamW::check(); }

std::span<const std::string_view> AdamW::slots() const {
  return std::span(slot_names).first(options_.amsgrad ? 3 : 2);
}

template <class T>
void AdamW::step(const UpdateRange<T>& range) const {
  adam_step(range, options_, gradient_factor(range), 0.0, 1 - options_.lr * options_.weight_decay);
}

template void Adam::step(const UpdateRange<float>&) const;
template void Adam::step(const UpdateRange<double>&) const;
template void AdamW::step(const UpdateRange<float>&) const;
template void AdamW::step(const UpdateRange<double>&) const;
template class BasicRule<Adam, AdamOptions>;
template class BasicRule<AdamW, AdamWOptions>;

}  // namespace lockstep::optim
