#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/parallel/gradient_reducer.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

struct StragglerOptions {
  std::int64_t every = 100;  ///< steps from one check to the next; at least 1
  /// Of their time that the other ranks must have lost by waiting for one, for that to be a straggler; above 0, below 1.
  double lost = 0.1;
};

/// A rank for which the others wait.
struct Straggler {
  int rank = 0;
  std::string host;
  double lost = 0;   ///< what part of their time the other ranks have waited for it
  double share = 0;  ///< and of all that they have waited
};

/// Finds ranks that are slower than others, such as one on a host that throttles or that somebody else uses too: every so many
/// steps, from how long each rank has waited in the rounds of a reducer. Where all wait alike, as for a slow network, there is
/// none.
///
///     StragglerCheck check(replica.reducer());
///     for (…) {
///       replica.backward(batch, loss);
///       optimizer.step();
///       check.step();
///     }
///
/// With w the seconds that a rank has waited since the last check, and W the mean of those of the others, they have waited
/// W − w for it: they would have waited as long as it does, were it as fast. That is `share` of W, and `lost` of the time. A
/// rank that is slow now and then is found as well. A check costs an all-reduce of a number for each rank, and a few small ones.
class StragglerCheck {
 public:
  /// Collective over the ranks of the reducer, which must outlive it. OptionError on all where options are out of range or
  /// differ.
  explicit StragglerCheck(const GradientReducer& reducer, const StragglerOptions& options = {});

  /// Counts a step, after each of which all ranks call this; a check where one is due, and true where that has found
  /// stragglers. Where they are others than those of the check before, rank 0 logs a warning that names them.
  bool step();

  /// A check now, of the time since the last one, which step() counts as well. Collective.
  const std::vector<Straggler>& check();

  /// Those of the last check, the same on all ranks; the one for which the others have waited most comes first.
  const std::vector<Straggler>& stragglers() const noexcept { return stragglers_; }

 private:
  using Clock = std::chrono::steady_clock;

  void find(const std::vector<double>& waited, double seconds);
  void report(const std::vector<int>& before) const;

  const GradientReducer* reducer_;
  Communicator communicator_;
  StragglerOptions options_;
  std::int64_t steps_ = 0;
  double waited_ = 0;        // by this rank at the last check
  Clock::time_point since_;  // when that was
  std::vector<Straggler> stragglers_;
};

}  // namespace lockstep

#pragma GCC visibility pop
