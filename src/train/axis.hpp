#pragma once

#include <string>
#include <vector>

namespace lockstep::train {

struct Tick {
  double value = 0;
  std::string label;
};

/// The range of an axis and its ticks, at multiples of 1, 2 or 5 times a power of ten.
struct Axis {
  double low = 0;
  double high = 1;
  std::vector<Tick> ticks;
};

struct AxisOptions {
  int ticks = 5;             ///< about so many
  bool whole_steps = false;  ///< ticks at integers only
  bool end_on_ticks = false;
};

/// The axis for values low ≤ v ≤ high, both finite and at most 1e300; widened where they are equal.
Axis make_axis(double low, double high, const AxisOptions& options);

}  // namespace lockstep::train
