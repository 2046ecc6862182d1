#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
#include <limits>
#include <string>
#include <string_view>

#pragma GCC visibility push(default)

namespace lockstep::train {

struct ProgressOptions {
  bool enabled = true;  ///< false on all ranks but one: nothing is printed
  std::FILE* stream = stdout;
  std::string unit = "items";
  std::int64_t initial = 0;   ///< items that were done before, as on a resume: no part of the rate
  double line_interval = 10;  ///< seconds between lines where the stream is no terminal
  /// Seconds that never run backwards; a steady clock where empty.
  std::function<double()> clock = {};
};

/// The progress of a loop, for people. On a terminal it is one line, redrawn at most ten times a
/// second and never wider than the terminal:
///
///     epoch 2   42% [=====>      ]  12.3k images/s  wait 3 %  0:12 left  loss 0.412 acc 85.1 %
///
/// Elsewhere, as in a log file, it is a plain line every `line_interval` seconds, and one at the
/// end. A terminal without a width, which is what mpirun gives its ranks when its own output goes
/// to a file, counts as elsewhere unless the environment has COLUMNS; so does TERM=dumb. Not for
/// several threads.
class Progress {
 public:
  /// `total` items make 100 %; with 0 there is no percentage, bar or time left. OptionError where
  /// it is negative, or the stream is null.
  Progress(std::string label, std::int64_t total, const ProgressOptions& options = {});
  /// Ends the line on a terminal where finish() has not, so that what is printed next starts a new
  /// one.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// So many items are done since the beginning, the initial ones included; `text` follows on the
  /// line.
  void update(std::int64_t items_done, std::string_view text = {});
  /// From the next line on, tells which share of its time, from 0 to 1, the program has waited, such
  /// as for other ranks. NaN, as at first, tells nothing; other numbers are cut to the range.
  void set_waiting(double share);
  /// Leaves a last line with the totals. What comes after is ignored.
  void finish();

 private:
  double now() const;
  void print(double time, bool last);

  std::string label_;
  std::int64_t total_;
  ProgressOptions options_;
  bool terminal_ = false;
  double start_ = 0;
  double last_draw_ = 0;
  std::int64_t done_ = 0;
  std::string text_;
  double waiting_ = std::numeric_limits<double>::quiet_NaN();
  bool drawn_ = false;
  bool finished_ = false;
};

}  // namespace lockstep::train

#pragma GCC visibility pop
