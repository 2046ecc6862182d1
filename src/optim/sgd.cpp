#include "lockstep/optim/sgd.hpp"

#include <array>

namespace lockstep::optim {

SGD::SGD(const SGDOptions& options) : BasicRule(options) { SGD::check(); }

std::span<const std::string_view> SGD::slots() const {
  static constexpr std::array<std::string_view, 1> names{"momentum_buffer"};
  return std::span(names).first(options_.momentum == 0 ? 0 : 1);
}

void SGD::check() const {
  require(options_.lr >= 0, "lr >= 0", options_.lr);
  require(options_.momentum >= 0, "momentum >= 0", options_.momentum);
  require(options_.dampening >= 0, "dampening >= 0", options_.dampening);
  require(options_.weight_decay >= 0, "weight_decay >= 0", options_.weight_decay);
  if (options_.nesterov) {
    require(options_.momentum > 0, "momentum > 0 with nesterov", options_.momentum);
    require(options_.dampening == 0, "dampening = 0 with nesterov", options_.dampening);
  }
}

// g = ∇f + weight_decay · p
// m = momentum · m + (1 - dampening) · g
// p = p - lr · (nesterov ? g + momentum · m : m)
template <class T>
void SGD::step(const UpdateRange<T>& range) const {
  const T lr = static_cast<T>(options_.lr);
  const T momentum = static_cast<T>(options_.momentum);
  const T share = static_cast<T>(1 - options_.dampening);
  const T weight_decay = static_cast<T>(options_.weight_decay);
  const std::size_t n = range.value.size();
  T* p = range.value.data();
  const T* gradient = range.gradient.data();

  if (options_.momentum == 0) {
    for (std::size_t i = 0; i < n; ++i) p[i] -= lr * (gradient[i] + weight_decay * p[i]);
    return;
  }
  T* m = range.slots[0].data();
  const T kept = range.fresh ? T{0} : momentum;
  const T added = range.fresh ? T{1} : share;
  const T lookahead = options_.nesterov ? momentum : T{1};
  const T direct = options_.nesterov ? T{1} : T{0};
  for (std::size_t i = 0; i < n; ++i) {
    const T g = gradient[i] + weight_decay * p[i];
    m[i] = kept * m[i] + added * g;
    p[i] -= lr * (direct * g + lookahead * m[i]);
  }
}

template void SGD::step(const UpdateRange<float>&) const;
template void SGD::step(const UpdateRange<double>&) const;

}  // namespace lockstep::optim
