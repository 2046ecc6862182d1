#include "lockstep/optim/rprop.hpp"

#include <algorithm>
#include <array>

namespace lockstep::optim {
namespace {

constexpr std::array<std::string_view, 2> slot_names{"prev", "step_size"};

}  // namespace

std::vector<Field> RpropOptions::fields() {
  return {{"lr", &lr, Domain::non_negative},         {"eta_minus", &eta_minus, Domain::positive},
          {"eta_plus", &eta_plus, Domain::positive}, {"step_min", &step_min, Domain::positive},
          {"step_max", &step_max, Domain::positive}, {"maximize", &maximize}};
}

Rprop::Rprop(const RpropOptions& options) : BasicRule(options) { Rprop::check(); }

std::span<const std::string_view> Rprop::slots() const { return slot_names; }

double Rprop::initial_value(std::size_t slot) const { return slot == 1 ? options_.lr : 0; }

void Rprop::check() const {
  BasicRule::check();
  require(options_.eta_minus < 1, "eta_minus < 1", options_.eta_minus);
  require(options_.eta_plus > 1, "eta_plus > 1", options_.eta_plus);
  require(options_.step_min <= options_.step_max, "step_min <= step_max", options_.step_min);
}

// Δ = clamp(Δ · (g · g₋₁ > 0 ? η₊ : g · g₋₁ < 0 ? η₋ : 1), step_min, step_max)
// g = 0 where g · g₋₁ < 0
// p = p - sign(g) · Δ
template <class T>
void Rprop::step(const UpdateRange<T>& range) const {
  const T eta_minus = static_cast<T>(options_.eta_minus);
  const T eta_plus = static_cast<T>(options_.eta_plus);
  const T step_min = static_cast<T>(options_.step_min);
  const T step_max = static_cast<T>(options_.step_max);
  const T scale = gradient_factor(range);
  for_each<2>(range, [=](T& p, T gradient, T& previous, T& size) {
    const T g = scale * gradient;
    const T agreement = g * previous;
    const T factor = agreement > 0 ? eta_plus : agreement < 0 ? eta_minus : T{1};
    size = std::min(std::max(size * factor, step_min), step_max);
    previous = agreement < 0 ? T{0} : g;
    const T sign = previous > 0 ? T{1} : previous < 0 ? T{-1} : T{0};
    p -= sign * size;
  });
}

template void Rprop::step(const UpdateRange<float>&) const;
template void Rprop::step(const UpdateRange<double>&) const;
template class BasicRule<Rprop, RpropOptions>;

}  // namespace lockstep::optim
