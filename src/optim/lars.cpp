#include "lockstep/optim/lars.hpp"

#include <array>
#include <cmath>

namespace lockstep::optim {

std::vector<Field> LARSOptions::fields() {
  return {{"lr", &lr, Domain::non_negative},
          {"momentum", &momentum, Domain::non_negative},
          {"weight_decay", &weight_decay, Domain::non_negative},
          {"trust_coefficient", &trust_coefficient, Domain::positive},
          {"eps", &eps, Domain::positive},
          {"nesterov", &nesterov},
          {"adapt", &adapt},
          {"maximize", &maximize}};
}

LARS::LARS(const LARSOptions& options) : BasicRule(options) { LARS::check(); }

std::span<const std::string_view> LARS::slots() const {
  static constexpr std::array<std::string_view, 1> names{"momentum_buffer"};
  return std::span(names).first(options_.momentum == 0 ? 0 : 1);
}

void LARS::check() const {
  BasicRule::check();
  if (options_.nesterov)
    require(options_.momentum > 0, "momentum > 0 with nesterov", options_.momentum);
}

// λ = trust_coefficient · ‖p‖ / (‖g‖ + weight_decay · ‖p‖ + ε), or 1 where ‖p‖ or ‖g‖ is 0
// m = momentum · m + λ · (g + weight_decay · p)
// p = p - lr · (nesterov ? λ · (g + weight_decay · p) + momentum · m : m)
template <class T>
void LARS::step(const UpdateRange<T>& range) const {
  const T scale = gradient_factor(range);
  double trust = 1;
  if (options_.adapt) {
    const double value = norm<T>(range.value);
    const double gradient = std::abs(range.gradient_scale) * norm<T>(range.gradient);
    if (value > 0 && gradient > 0) {
      trust = options_.trust_coefficient * value /
              (gradient + options_.weight_decay * value + options_.eps);
    }
  }
  const T rate = static_cast<T>(trust);
  const T lr = static_cast<T>(options_.lr);
  const T weight_decay = static_cast<T>(options_.weight_decay);
  if (options_.momentum == 0) {
    return for_each<0>(
        range, [=](T& p, T gradient) { p -= lr * (rate * (scale * gradient + weight_decay * p)); });
  }
  const T momentum = static_cast<T>(options_.momentum);
  const T ahead = options_.nesterov ? momentum : T{1};
  const T direct = options_.nesterov ? T{1} : T{0};
  for_each<1>(range, [=](T& p, T gradient, T& m) {
    const T g = rate * (scale * gradient + weight_decay * p);
    m = momentum * m + g;
    p -= lr * (direct * g + ahead * m);
  });
}

template void LARS::step(const UpdateRange<float>&) const;
template void LARS::step(const UpdateRange<double>&) const;
template class BasicRule<LARS, LARSOptions>;

}  // namespace lockstep::optim
