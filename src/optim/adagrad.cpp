#include "lockstep/optim/adagrad.hpp"

#include <array>
#include <cmath>

namespace lockstep::optim {
namespace {

constexpr std::array<std::string_view, 1> slot_names{"sum"};

}  // namespace

std::vector<Field> AdagradOptions::fields() {
  return {{"lr", &lr, Domain::non_negative},
          {"lr_decay", &lr_decay, Domain::non_negative},
          {"weight_decay", &weight_decay, Domain::non_negative},
          {"initial_accumulator_value", &initial_accumulator_value, Domain::non_negative},
          {"eps", &eps, Domain::positive},
          {"maximize", &maximize}};
}

Adagrad::Adagrad(const AdagradOptions& options) : BasicRule(options) { Adagrad::check(); }

std::span<const std::string_view> Adagrad::slots() const { return slot_names; }

double Adagrad::initial_value(std::size_t) const { return options_.initial_accumulator_value; }

// s = s + g²
// p = p - lr / (1 + (t - 1) · lr_decay) · g / (√s + ε)
template <class T>
void Adagrad::step(const UpdateRange<T>& range) const {
  const double before = static_cast<double>(range.step - 1);
  const T step_size = static_cast<T>(options_.lr / (1 + before * options_.lr_decay));
  const T eps = static_cast<T>(options_.eps);
  const T weight_decay = static_cast<T>(options_.weight_decay);
  const T scale = gradient_factor(range);
  for_each<1>(range, [=](T& p, T gradient, T& sum) {
    const T g = scale * gradient + weight_decay * p;
    sum += g * g;
    p -= step_size * g / (std::sqrt(sum) + eps);
  });
}

template void Adagrad::step(const UpdateRange<float>&) const;
template void Adagrad::step(const UpdateRange<double>&) const;
template class BasicRule<Adagrad, AdagradOptions>;

}  // namespace lockstep::optim
