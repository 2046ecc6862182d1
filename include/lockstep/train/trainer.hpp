#pragma once

#include <cstdint>
#include <functional>
#include <limits>

#include "lockstep/comm/communicator.hpp"

#pragma GCC visibility push(default)

namespace lockstep::train {

/// What a step of training tells of itself.
struct StepLoss {
  double loss = 0;           ///< mean over the samples of this rank
  std::int64_t samples = 0;  ///< of this rank; 0 where it has none
};

/// What became of train() or train_for(): the same on all ranks but for the seconds.
struct TrainReport {
  std::int64_t steps = 0;
  double seconds = 0;  ///< of this rank, by its clock
  /// Mean over the samples of all ranks and steps; NaN where there were none.
  double loss = std::numeric_limits<double>::quiet_NaN();
};

struct TrainerOptions {
  /// Seconds that never run backwards; a steady clock where it is empty.
  std::function<double()> clock = {};
};

/// Runs steps of training in the time that a program has for them, such as a part of each time step
/// of a simulation:
///
///     train::Trainer trainer(communicator, [&] {
///       const data::Batch batch = reservoir.draw(256);
///       optimizer.zero_grad();
///       const double loss = replica.backward(batch, [&](const data::Batch& part) {
///         return mean_squared_error(model(part.inputs), part.targets);
///       });
///       optimizer.step();
///       return train::StepLoss{loss, batch.size()};
///     });
///     for (…) {
///       advance(fields);
///       trainer.train_for(0.010);
///     }
///
/// All calls are collective, with arguments that are alike on all ranks. What a step throws, they
/// throw; a step must throw on all ranks or on none, as one of the parts above does. Not for
/// several threads.
class Trainer {
 public:
  using Step = std::function<StepLoss()>;

  /// OptionError for an empty step.
  Trainer(const Communicator& communicator, Step step, const TrainerOptions& options = {});

  /// So many steps. OptionError unless steps ≥ 0.
  TrainReport train(std::int64_t steps);

  /// As many steps as fit into so many seconds on the slowest rank: the same number on all. A step
  /// fits where the time that is left is at least what the last ones took. Of the first two nobody
  /// knows, so they are made in any case, unless there are 0 seconds. What does not fit is tried
  /// all the same after some calls without a step, since it may have been slow by chance: after 22
  /// where it takes ten times as long. Ranks agree a number of times that grows as the logarithm of
  /// that of steps. OptionError, on all ranks, unless seconds ≥ 0.
  TrainReport train_for(double seconds);

  /// All steps so far.
  std::int64_t steps() const noexcept { return steps_; }
  /// What a step took lately on the slowest rank, in seconds; 0 before the first.
  double seconds_per_step() const noexcept { return seconds_per_step_; }

 private:
  struct Sums;

  void run(std::int64_t steps, Sums& sums);
  std::int64_t steps_that_fit(double seconds) const;
  TrainReport report(const Sums& sums, double begin);

  Communicator communicator_;
  Step step_;
  std::function<double()> clock_;
  std::int64_t steps_ = 0;
  double seconds_per_step_ = 0;
};

}  // namespace lockstep::train

#pragma GCC visibility pop
