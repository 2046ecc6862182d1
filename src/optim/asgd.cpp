#include "lockstep/optim/asgd.hpp"

#include <array>
#include <cmath>

namespace lockstep::optim {
namespace {

constexpr std::array<std::string_view, 1> slot_names{"ax"};

}  // namespace

std::vector<Field> ASGDOptions::fields() {
  return {{"lr", &lr, Domain::non_negative},
          {"lambd", &lambd, Domain::non_negative},
          {"alpha", &alpha, Domain::non_negative},
          {"t0", &t0, Domain::non_negative},
          {"weight_decay", &weight_decay, Domain::non_negative},
          {"maximize", &maximize}};
}

ASGD::ASGD(const ASGDOptions& options) : BasicRule(options) { ASGD::check(); }

std::span<const std::string_view> ASGD::slots() const { return slot_names; }

// η = lr / (1 + lambd · lr · (t - 1))^alpha,  μ = 1 / max(1, t - 1 - t0)
// p = (1 - lambd · η) · p - η · g
// a = a + μ · (p - a)
template <class T>
void ASGD::step(const UpdateRange<T>& range) const {
  const double before = static_cast<double>(range.step - 1);
  const double eta =
      options_.lr / std::pow(1 + options_.lambd * options_.lr * before, options_.alpha);
  const T step_size = static_cast<T>(eta), kept = static_cast<T>(1 - options_.lambd * eta);
  const T weight_decay = static_cast<T>(options_.weight_decay);
  const T scale = gradient_factor(range);
  const auto move = [=](T& p, T gradient) {
    const T g = scale * gradient + weight_decay * p;
    p = kept * p - step_size * g;
  };
  if (before - options_.t0 <= 1) {
    return for_each<1>(range, [=](T& p, T gradient, T& average) {
      move(p, gradient);
      average = p;
    });
  }
  const T share = static_cast<T>(1 / (before - options_.t0));
  for_each<1>(range, [=](T& p, T gradient, T& average) {
    move(p, gradient);
    average += share * (p - average);
  });
}

template void ASGD::step(const UpdateRange<float>&) const;
template void ASGD::step(const UpdateRange<double>&) const;
template class BasicRule<ASGD, ASGDOptions>;

}  // namespace lockstep::optim
