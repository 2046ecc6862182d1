#include "gradient_check.hpp"

#include <algorithm>
#include <cmath>

using namespace lockstep;

GradientCheck check_gradient(Inversion& inversion, std::uint64_t seed) {
  constexpr std::int64_t cells = 24;
  constexpr double step = 1e-4;
  const RandomKey key = RandomKey(seed).fold("gradient check");
  Tensor& field = inversion.parameter().mutable_value();
  fill_uniform(field, key.fold("field"), -1, 1);
  inversion.evaluate();
  const Tensor gradient = inversion.parameter().grad().clone();

  GradientCheck check{.cells = cells};
  for (std::uint64_t i = 0; i < cells; ++i) {
    const std::uint64_t cell = key.fold("cells").below(static_cast<std::uint64_t>(field.size()), i);
    double& value = field.span<double>()[cell];
    const double middle = value;
    const auto objective_at = [&](double at) {
      value = at;
      return inversion.evaluate().value;
    };
    const double slope = (objective_at(middle + step) - objective_at(middle - step)) / (2 * step);
    value = middle;
    const double derivative = gradient.span<double>()[cell];
    const double size = std::max(std::abs(slope), std::abs(derivative));
    check.difference = std::max(check.difference, std::abs(slope - derivative) / size);
  }
  return check;
}
