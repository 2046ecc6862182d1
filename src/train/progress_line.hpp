#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lockstep::train {

/// What a progress line tells.
struct ProgressReport {
  std::string_view label;
  std::string_view unit;
  std::string_view text;
  std::int64_t total = 0;
  std::int64_t initial = 0;
  std::int64_t done = 0;
  double seconds = 0;
  double waiting = 0;  ///< the share of time; NaN where it is not known
};

/// The line with a bar, at most `columns` wide: the less important parts are left out where it is
/// narrow.
std::string bar_line(const ProgressReport& report, std::size_t columns);
/// The line for a log file.
std::string log_line(const ProgressReport& report);
/// The last line, with totals, at most `columns` wide.
std::string final_line(const ProgressReport& report, std::size_t columns);

}  // namespace lockstep::train
