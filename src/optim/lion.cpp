#include "lockstep/optim/lion.hpp"

#include <array>

namespace lockstep::optim {
namespace {

constexpr std::array<std::string_view, 1> slot_names{"exp_avg"};

}  // namespace

std::vector<Field> LionOptions::fields() {
  return {{"lr", &lr, Domain::non_negative},
          {"beta1", &beta1, Domain::fraction},
          {"beta2", &beta2, Domain::fraction},
          {"weight_decay", &weight_decay, Domain::non_negative},
          {"maximize", &maximize}};
}

Lion::Lion(const LionOptions& options) : BasicRule(options) { Lion::check(); }

std::span<const std::string_view> Lion::slots() const { return slot_names; }

// p = p - lr · (sign(β₁ · m + (1 - β₁) · g) + weight_decay · p)
// m = β₂ · m + (1 - β₂) · g
template <class T>
void Lion::step(const UpdateRange<T>& range) const {
  const T lr = static_cast<T>(options_.lr);
  const T beta1 = static_cast<T>(options_.beta1), rest1 = static_cast<T>(1 - options_.beta1);
  const T beta2 = static_cast<T>(options_.beta2), rest2 = static_cast<T>(1 - options_.beta2);
  const T weight_decay = static_cast<T>(options_.weight_decay);
  const T scale = gradient_factor(range);
  for_each<1>(range, [=](T& p, T gradient, T& m) {
    const T g = scale * gradient;
    const T direction = beta1 * m + rest1 * g;
    const T sign = direction > 0 ? T{1} : direction < 0 ? T{-1} : T{0};
    p -= lr * (sign + weight_decay * p);
    m = beta2 * m + rest2 * g;
  });
}

template void Lion::step(const UpdateRange<float>&) const;
template void Lion::step(const UpdateRange<double>&) const;
template class BasicRule<Lion, LionOptions>;

}  // namespace lockstep::optim
