#pragma once

#include <functional>
#include <vector>

#include "lockstep/tensor/tensor.hpp"

namespace lockstep::optim {

/// A point on the line: step size, loss, derivative along the line, and gradient.
struct LinePoint {
  double t = 0, loss = 0, slope = 0;
  std::vector<Tensor> gradient = {};
};

/// A step size along a line that meets the strong Wolfe conditions, for sufficient decrease (with
/// 1e-4) and for curvature (0.9), or the best that was found within 25 evaluations. `evaluate` gives
/// the point at a step size; `length` is the largest number of the direction, by which the
/// search ends where values would change by less than `tolerance`. Nocedal, Wright, "Numerical
/// optimization", algorithms 3.5 and 3.6.
LinePoint strong_wolfe(const LinePoint& start, double t, double length, double tolerance,
                       const std::function<LinePoint(double t)>& evaluate);

}  // namespace lockstep::optim
