#include "lockstep/optim/sgd.hpp"

#include <array>

namespace lockstep::optim {

std::vector<Field> SGDOptions::fields() {
  return {{"lr", &lr, Domain::non_negative},
          {"momentum", &momentum, Domain::non_negative},
          {"dampening", &dampening, Domain::non_negative},
          {"weight_decay", &weight_decay, Domain::non_negative},
          {"nesterov", &nesterov},
          {"maximize", &maximize}};
}

SGD::SGD(const SGDOptions& options) : BasicRule(options) { SGD::check(); }

std::span<const std::string_view> SGD::slots() const {
  static constexpr std::array<std::string_view, 1> names{"momentum_buffer"};
  return std::span(names).first(options_.momentum == 0 ? 0 : 1);
}

void SGD::check() const {
  BasicRule::check();
  if (!options_.nesterov) return;
  require(options_.momentum > 0, "momentum > 0 with nesterov", options_.momentum);
  require(options_.dampening == 0, "dampening = 0 with nesterov", options_.dampening);
}

// g = ∇f + weight_decay · p
// m = momentum · m + (1 - dampening) · g
// p = p - lr · (nesterov ? g + momentum · m : m)
template <class T>
void SGD::step(const UpdateRange<T>& range) const {
  const T scale = gradient_factor(range);
  const T lr = static_cast<T>(options_.lr);
  const T weight_decay = static_cast<T>(options_.weight_decay);
  if (options_.momentum == 0) {
    return for_each<0>(range,
                       [=](T& p, T gradient) { p -= lr * (scale * gradient + weight_decay * p); });
  }
  const T momentum = static_cast<T>(options_.momentum);
  const T kept = range.fresh ? T{0} : momentum;
  const T added = range.fresh ? T{1} : static_cast<T>(1 - options_.dampening);
  const T ahead = options_.nesterov ? momentum : T{1};
  const T direct = options_.nesterov ? T{1} : T{0};
  for_each<1>(range, [=](T& p, T gradient, T& m) {
    const T g = scale * gradient + weight_decay * p;
    m = kept * m + added * g;
    p -= lr * (direct * g + ahead * m);
  });
}

template void SGD::step(const UpdateRange<float>&) const;
template void SGD::step(const UpdateRange<double>&) const;
template class BasicRule<SGD, SGDOptions>;

}  // namespace lockstep::optim
