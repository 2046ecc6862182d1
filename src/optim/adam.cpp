#include "lockstep/optim/adam.hpp"

#include <array>
#include <cmath>

namespace lockstep::optim {
namespace {

constexpr std::array<std::string_view, 2> slot_names{"exp_avg", "exp_avg_sq"};

// g = ∇f + coupled_decay · p
// p = decay · p
// m = β₁ · m + (1 - β₁) · g
// v = β₂ · v + (1 - β₂) · g²
// p = p - lr / (1 - β₁ᵗ) · m / (√v / √(1 - β₂ᵗ) + ε)
template <class T, class Options>
void adam_step(const UpdateRange<T>& range, const Options& options, double coupled_decay,
               double decay) {
  const double t = static_cast<double>(range.step);
  const T step_size = static_cast<T>(options.lr / (1 - std::pow(options.beta1, t)));
  const T correction = static_cast<T>(std::sqrt(1 - std::pow(options.beta2, t)));
  const T beta1 = static_cast<T>(options.beta1), rest1 = static_cast<T>(1 - options.beta1);
  const T beta2 = static_cast<T>(options.beta2), rest2 = static_cast<T>(1 - options.beta2);
  const T eps = static_cast<T>(options.eps);
  const T coupled = static_cast<T>(coupled_decay), kept = static_cast<T>(decay);

  T* p = range.value.data();
  const T* gradient = range.gradient.data();
  T* m = range.slots[0].data();
  T* v = range.slots[1].data();
  for (std::size_t i = 0; i < range.value.size(); ++i) {
    const T g = gradient[i] + coupled * p[i];
    m[i] = beta1 * m[i] + rest1 * g;
    v[i] = beta2 * v[i] + rest2 * g * g;
    p[i] = kept * p[i] - step_size * m[i] / (std::sqrt(v[i]) / correction + eps);
  }
}

template <class Options>
void check_options(const UpdateRule& rule, const Options& options) {
  rule.require(options.lr >= 0, "lr >= 0", options.lr);
  rule.require(options.beta1 >= 0 && options.beta1 < 1, "0 <= beta1 < 1", options.beta1);
  rule.require(options.beta2 >= 0 && options.beta2 < 1, "0 <= beta2 < 1", options.beta2);
  rule.require(options.eps > 0, "eps > 0", options.eps);
  rule.require(options.weight_decay >= 0, "weight_decay >= 0", options.weight_decay);
}

}  // namespace

Adam::Adam(const AdamOptions& options) : BasicRule(options) { Adam::check(); }

std::span<const std::string_view> Adam::slots() const { return slot_names; }

void Adam::check() const { check_options(*this, options_); }

template <class T>
void Adam::step(const UpdateRange<T>& range) const {
  adam_step(range, options_, options_.weight_decay, 1.0);
}

template void Adam::step(const UpdateRange<float>&) const;
template void Adam::step(const UpdateRange<double>&) const;

AdamW::AdamW(const AdamWOptions& options) : BasicRule(options) { AdamW::check(); }

std::span<const std::string_view> AdamW::slots() const { return slot_names; }

void AdamW::check() const { check_options(*this, options_); }

template <class T>
void AdamW::step(const UpdateRange<T>& range) const {
  adam_step(range, options_, 0.0, 1 - options_.lr * options_.weight_decay);
}

template void AdamW::step(const UpdateRange<float>&) const;
template void AdamW::step(const UpdateRange<double>&) const;

}  // namespace lockstep::optim
