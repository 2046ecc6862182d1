#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/state/state_dict.hpp"

#pragma GCC visibility push(default)

namespace lockstep::testing {

/// How far a number may be from the one that is stored: by `absolute` + `relative` · |stored|. Where both are 0, all bits
/// must be the same, which they are for one build on one kind of CPU; NaN is equal to NaN.
struct Tolerance {
  double relative = 0;
  double absolute = 0;
};

/// What a training run has come to after each of its steps, which a file keeps for the runs to come: a regression test.
///
///     Trajectory run("heat.json", world());
///     for (int step = 1; step <= 5; ++step) {
///       ...
///       run.record(step, "loss", loss);
///       run.record(step, model.state_dict());
///     }
///     EXPECT_TRUE(run.matches());
///
/// Each rank records, under the same names, what should be the same on all: the loss of all ranks, parameters, the
/// state of an optimizer. Of a tensor the file keeps its shape, its dtype and a hash, its norm, and up to 16 of its
/// numbers, evenly spread, with which it is compared where there is a tolerance.
class Trajectory {
 public:
  /// `file` is JSON, and should be kept with the sources of the test.
  Trajectory(std::string file, const Communicator& ranks, const Tolerance& tolerance = {});
  ~Trajectory();
  Trajectory(const Trajectory&) = delete;
  Trajectory& operator=(const Trajectory&) = delete;

  /// Adds a number, a tensor, or all that is in a dict under its keys, joined by dots. OptionError where a step is before
  /// one that was recorded, has a value of that name already, or where part of a tensor is to be recorded.
  void record(std::int64_t step, std::string_view name, const StateValue& value);
  void record(std::int64_t step, const StateDict& state);

  /// Compares what was recorded with the file; or, where LOCKSTEP_TEST_UPDATE is set and not 0, and all ranks have
  /// recorded the same, replaces the file. A failure names the first step and value that differs, what was stored and
  /// found, and on which rank. Collective.
  ::testing::AssertionResult matches() const;

 private:
  struct Recording;

  std::string file_;
  Communicator ranks_;
  Tolerance tolerance_;
  std::unique_ptr<Recording> recording_;
};

}  // namespace lockstep::testing

#pragma GCC visibility pop
