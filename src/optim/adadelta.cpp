#include "lockstep/optim/adadelta.hpp"

#include <array>
#include <cmath>

namespace lockstep::optim {
namespace {

constexpr std::array<std::string_view, 2> slot_names{"square_avg", "acc_delta"};

}  // namespace

std::vector<Field> AdadeltaOptions::fields() {
  return {{"lr", &lr, Domain::non_negative},
          {"rho", &rho, Domain::fraction},
          {"eps", &eps, Domain::positive},
          {"weight_decay", &weight_decay, Domain::non_negative},
          {"maximize", &maximize}};
}

Adadelta::Adadelta(const AdadeltaOptions& options) : BasicRule(options) { Adadelta::check(); }

std::span<const std::string_view> Adadelta::slots() const { return slot_names; }

// v = ρ · v + (1 - ρ) · g²
// Δ = √(u + ε) / √(v + ε) · g
// u = ρ · u + (1 - ρ) · Δ²
// p = p - lr · Δ
template <class T>
void Adadelta::step(const UpdateRange<T>& range) const {
  const T lr = static_cast<T>(options_.lr);
  const T rho = static_cast<T>(options_.rho), rest = static_cast<T>(1 - options_.rho);
  const T eps = static_cast<T>(options_.eps);
  const T weight_decay = static_cast<T>(options_.weight_decay);
  const T scale = gradient_factor(range);
  for_each<2>(range, [=](T& p, T gradient, T& v, T& u) {
    const T g = scale * gradient + weight_decay * p;
    v = rho * v + rest * g * g;
    const T delta = std::sqrt(u + eps) / std::sqrt(v + eps) * g;
    u = rho * u + rest * delta * delta;
    p -= lr * delta;
  });
}

template void Adadelta::step(const UpdateRange<float>&) const;
template void Adadelta::step(const UpdateRange<double>&) const;
template class BasicRule<Adadelta, AdadeltaOptions>;

}  // namespace lockstep::optim
