#include "lockstep/optim/rmsprop.hpp"

#include <algorithm>
#include <array>
#include <cmath>

namespace lockstep::optim {

std::vector<Field> RMSpropOptions::fields() {
  return {{"lr", &lr, Domain::non_negative},
          {"alpha", &alpha, Domain::fraction},
          {"eps", &eps, Domain::positive},
          {"weight_decay", &weight_decay, Domain::non_negative},
          {"momentum", &momentum, Domain::non_negative},
          {"centered", &centered},
          {"maximize", &maximize}};
}

RMSprop::RMSprop(const RMSpropOptions& options) : BasicRule(options) { RMSprop::check(); }

std::span<const std::string_view> RMSprop::slots() const {
  static constexpr std::array<std::string_view, 3> centered{"square_avg", "grad_avg",
                                                            "momentum_buffer"};
  static constexpr std::array<std::string_view, 2> plain{"square_avg", "momentum_buffer"};
  const bool momentum = options_.momentum > 0;
  return options_.centered ? std::span<const std::string_view>(centered).first(momentum ? 3 : 2)
                           : std::span<const std::string_view>(plain).first(momentum ? 2 : 1);
}

// v = α · v + (1 - α) · g²
// a = α · a + (1 - α) · g
// d = g / (√(centered ? max(v - a², 0) : v) + ε)
// m = momentum · m + d
// p = p - lr · m
template <class T>
void RMSprop::step(const UpdateRange<T>& range) const {
  const T lr = static_cast<T>(options_.lr);
  const T alpha = static_cast<T>(options_.alpha), rest = static_cast<T>(1 - options_.alpha);
  const T eps = static_cast<T>(options_.eps);
  const T momentum = static_cast<T>(options_.momentum);
  const T weight_decay = static_cast<T>(options_.weight_decay);
  const T scale = gradient_factor(range);
  const auto gradient_of = [=](T p, T gradient) { return scale * gradient + weight_decay * p; };
  const auto direction = [=](T g, T& v) {
    v = alpha * v + rest * g * g;
    return g / (std::sqrt(v) + eps);
  };
  const auto centered_direction = [=](T g, T& v, T& a) {
    v = alpha * v + rest * g * g;
    a = alpha * a + rest * g;
    return g / (std::sqrt(std::max(v - a * a, T{0})) + eps);
  };
  if (options_.centered && options_.momentum > 0) {
    for_each<3>(range, [=](T& p, T gradient, T& v, T& a, T& m) {
      m = momentum * m + centered_direction(gradient_of(p, gradient), v, a);
      p -= lr * m;
    });
  } else if (options_.centered) {
    for_each<2>(range, [=](T& p, T gradient, T& v, T& a) {
      p -= lr * centered_direction(gradient_of(p, gradient), v, a);
    });
  } else if (options_.momentum > 0) {
    for_each<2>(range, [=](T& p, T gradient, T& v, T& m) {
      m = momentum * m + direction(gradient_of(p, gradient), v);
      p -= lr * m;
    });
  } else {
    for_each<1>(range,
                [=](T& p, T gradient, T& v) { p -= lr * direction(gradient_of(p, gradient), v); });
  }
}

template void RMSprop::step(const UpdateRange<float>&) const;
template void RMSprop::step(const UpdateRange<double>&) const;
template class BasicRule<RMSprop, RMSpropOptions>;

}  // namespace lockstep::optim
