#pragma once

#include <memory>
#include <optional>

#include "lockstep/optim/step_in_backward.hpp"
#include "lockstep/parallel/gradient_reducer.hpp"
#include "lockstep/parallel/sharded_optimizer.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

/// While one exists, a reduction steps: as soon as the gradients of a bucket are there, each rank combines those of
/// its share, steps them, and gives the others their new values, while the backward goes on. A value may change from
/// when its gradient is ready on all ranks until the reduction is over. A reduced gradient is
/// used while it is in the cache, and is nowhere else: after a backward there are no gradients. Those of this rank
/// need memory of a few buckets alone where GradientReducerOptions::keep_gradients is false.
///
/// Each reduction is a step; hooks of the optimizer around steps are not called, there is no clipping, and no param
/// group is added or comes to step whole parameters meanwhile, which is a StateError on all ranks. A reduction
/// that ends by an exception has stepped the parameters of those buckets that all ranks had come to before. The graph of such a
/// backward must not be used again, nor what shares a parameter's memory, as detach() does, go into a loss
/// beside the parameter.
class StepInReduction {
 public:
  /// Both must outlive it. Collective. OptionError on all ranks where the optimizer has other parameters than the
  /// reducer, clips, or has a rule that steps whole parameters, and where the reducer compresses, has logical
  /// replicas or leaves out missing gradients; StateError where gradients are there, or it steps already.
  StepInReduction(GradientReducer& reducer, ShardedOptimizer& optimizer,
                  const StepOptions& options = {});
  ~StepInReduction();
  StepInReduction(const StepInReduction&) = delete;
  StepInReduction& operator=(const StepInReduction&) = delete;

 private:
  GradientReducer& reducer_;
  std::unique_ptr<ShardedOptimizer::Stepper> stepper_;
  std::optional<StepInBackward> alone_;  // of one rank
};

}  // namespace lockstep

#pragma GCC visibility pop
