#include "train/axis.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace lockstep::train {
namespace {

double nice_step(double raw) {
  const double magnitude = std::pow(10, std::floor(std::log10(raw)));
  const double leading = raw / magnitude;
  return magnitude * (leading <= 1.5 ? 1 : leading <= 3 ? 2 : leading <= 7 ? 5 : 10);
}

// With as many digits as tell neighbouring ticks apart.
std::string tick_label(double value, double step, double largest) {
  if (std::abs(value) < step / 2) value = 0;
  const int decimals = std::max(0, -static_cast<int>(std::floor(std::log10(step) + 1e-9)));
  if (largest < 1e7 && decimals <= 5) return fmt::format("{:.{}f}", value, decimals);
  const int digits = static_cast<int>(std::ceil(std::log10(largest / step))) + 1;
  return fmt::format("{:.{}g}", value, std::clamp(digits, 1, 15));
}

}  // namespace

Axis make_axis(double low, double high, const AxisOptions& options) {
  // In a narrower range, ticks would not be distinct normal numbers.
  constexpr double smallest = 1e-290;
  const double largest = std::max(std::abs(low), std::abs(high));
  if (high - low <= std::max(smallest, 1e-9 * largest)) {
    const double margin = largest > smallest ? 0.1 * largest : 1;
    low -= margin;
    high += margin;
  }
  double step = nice_step((high - low) / options.ticks);
  if (options.whole_steps) step = std::max(step, 1.0);
  if (options.end_on_ticks) {
    low = std::floor(low / step + 1e-6) * step;
    high = std::ceil(high / step - 1e-6) * step;
  }
  Axis axis{low, high, {}};
  const double first = std::ceil(low / step - 1e-6);
  const double last = std::floor(high / step + 1e-6);
  for (double i = first; i <= last; ++i) {
    axis.ticks.push_back({i * step, tick_label(i * step, step, std::max(-low, high))});
  }
  return axis;
}

}  // namespace lockstep::train
