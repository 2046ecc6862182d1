#pragma once

#include <cstdint>

#include "inversion.hpp"

struct GradientCheck {
  std::int64_t cells = 0;  ///< whose derivatives were compared
  double difference = 0;   ///< the largest, relative to the derivative
};

/// Compares the gradient at a conductivity drawn at random with central differences, in some cells.
/// Collective. Leaves another conductivity behind.
GradientCheck check_gradient(Inversion& inversion, std::uint64_t seed);
