#include "optim/strong_wolfe.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace lockstep::optim {
namespace {

constexpr double decrease = 1e-4;
constexpr double curvature = 0.9;
constexpr int most_evaluations = 25;

// Where the cubic through two points, with their slopes, is smallest between the bounds: Nocedal,
// Wright, formula 3.59.
double cubic_minimum(const LinePoint& a, const LinePoint& b, double lower, double upper) {
  const double d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t);
  const double square = d1 * d1 - a.slope * b.slope;
  if (!(square >= 0)) return (lower + upper) / 2;
  const auto [left, right] = a.t <= b.t ? std::pair(a, b) : std::pair(b, a);
  const double d2 = std::sqrt(square);
  const double minimum = right.t - (right.t - left.t) * ((right.slope + d2 - d1) /
                                                         (right.slope - left.slope + 2 * d2));
  if (!std::isfinite(minimum)) return (lower + upper) / 2;
  return std::min(std::max(minimum, lower), upper);
}

class LineSearch {
 public:
  LineSearch(const LinePoint& start, double length, double tolerance,
             const std::function<LinePoint(double)>& evaluate)
      : start_(start), length_(length), tolerance_(tolerance), evaluate_(evaluate) {}

  LinePoint run(double t) {
    if (bracket(t)) return low_;
    zoom();
    return low_;
  }

 private:
  // A loss that is not a number has not decreased.
  bool decreases(const LinePoint& point) const {
    return point.loss <= start_.loss + decrease * point.t * start_.slope;
  }
  bool is_flat(const LinePoint& point) const {
    return std::abs(point.slope) <= -curvature * start_.slope;
  }
  void set_bracket(const LinePoint& a, const LinePoint& b) {
    const bool first_is_lower = a.loss <= b.loss || !std::isfinite(b.loss);
    low_ = first_is_lower ? a : b;
    high_ = first_is_lower ? b : a;
  }

  // Goes on to longer steps until two of them have a minimum between them; true where one meets the
  // conditions already.
  bool bracket(double t) {
    LinePoint previous = start_;
    for (; used_ < most_evaluations; ++used_) {
      const LinePoint point = evaluate_(t);
      if (!decreases(point) || (used_ > 1 && point.loss >= previous.loss)) {
        set_bracket(previous, point);
        return false;
      }
      if (is_flat(point)) {
        low_ = point;
        return true;
      }
      if (point.slope >= 0) {
        set_bracket(previous, point);
        return false;
      }
      last_ = point;
      t = cubic_minimum(previous, point, point.t + 0.01 * (point.t - previous.t), point.t * 10);
      previous = point;
    }
    set_bracket(start_, last_);
    return false;
  }

  // Halves the bracket, more or less, until a point within meets the conditions.
  void zoom() {
    bool stalled = false;
    while (used_ < most_evaluations) {
      const double lower = std::min(low_.t, high_.t), upper = std::max(low_.t, high_.t);
      if ((upper - lower) * length_ < tolerance_) return;
      double t = cubic_minimum(low_, high_, lower, upper);
      // Near an end of the bracket twice, or on it, hardly anything is gained.
      const double margin = 0.1 * (upper - lower);
      const bool near = std::min(upper - t, t - lower) < margin;
      if (near && (stalled || t >= upper || t <= lower)) {
        t = upper - t < t - lower ? upper - margin : lower + margin;
        stalled = false;
      } else {
        stalled = near;
      }

      const LinePoint point = evaluate_(t);
      ++used_;
      if (!decreases(point) || point.loss >= low_.loss) {
        high_ = point;
        if (high_.loss < low_.loss) std::swap(low_, high_);
        continue;
      }
      if (is_flat(point)) {
        low_ = point;
        return;
      }
      if (point.slope * (high_.t - low_.t) >= 0) high_ = low_;
      low_ = point;
    }
  }

  LinePoint start_;
  double length_, tolerance_;
  const std::function<LinePoint(double)>& evaluate_;
  int used_ = 0;
  LinePoint last_, low_, high_;
};

}  // namespace

LinePoint strong_wolfe(const LinePoint& start, double t, double length, double tolerance,
                       const std::function<LinePoint(double)>& evaluate) {
  return LineSearch(start, length, tolerance, evaluate).run(t);
}

}  // namespace lockstep::optim
