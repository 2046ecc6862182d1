#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/comm/shared_buffer.hpp"
#include "lockstep/nn/module.hpp"
#include "lockstep/optim/keyed_optimizer.hpp"
#include "lockstep/state/stateful.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

/// Alike on all ranks.
struct ParameterAveragerOptions {
  std::int64_t every = 4;         ///< steps from one average to the next; at least 1
  std::int64_t warmup_steps = 0;  ///< first steps, after each of which values are averaged
};

/// Local SGD: each rank trains a model by itself, on its own gradients, and every so many steps the
/// values of the parameters are averaged over all ranks. Stich, "Local SGD converges fast and
/// communicates little", arXiv:1805.09767; with a warm-up, post-local SGD: Lin et al., "Don't use large
/// mini-batches, use local SGD", arXiv:1808.07217.
///
///     ParameterAverager averager(model, world, {.every = 4, .warmup_steps = 100});
///     for (…) {
///       optimizer.zero_grad();
///       loss(batch).backward();
///       optimizer.step();
///       averager.step(optimizer);
///     }
///     averager.average(optimizer);
///
/// No gradient is reduced, so the model goes without DataParallel. With SGD, an average after each step is
/// one of gradients, up to rounding. Between averages the ranks differ: save checkpoints, and
/// evaluate, after one. Buffers are averaged where this is made of a module, and stay those of each rank
/// where it is made of parameters.
///
/// state_dict() is {"steps": 7, "rounds": 3}.
class ParameterAverager : public Stateful {
 public:
  /// Collective. Gives all ranks the values of rank 0. Throws on all ranks: NameError, ShapeError or
  /// DTypeError, which names the first difference and two ranks, where the lists differ; NameError where
  /// two parameters have one name, StateError for an undefined one; OptionError for an empty list, or
  /// options that differ or are out of range.
  ParameterAverager(const std::vector<NamedParameter>& parameters, const Communicator& communicator,
                    const ParameterAveragerOptions& options = {});

  /// The parameters of a module, and its buffers: of counts, the largest becomes that of all.
  ParameterAverager(const nn::Module& model, const Communicator& communicator,
                    const ParameterAveragerOptions& options = {});

  /// Counts a step, after each of which all ranks call this; averages where it is time to.
  void step() { advance(nullptr); }
  /// With the optimizer's state, as in average(optimizer).
  void step(KeyedOptimizer& optimizer) { advance(&optimizer); }

  /// Averages the values now. Collective; all ranks have the same bits then.
  void average() { average_with(nullptr); }
  /// Averages all floating-point tensors in the optimizer's state as well, such as momentum. Collective.
  /// StateError on all ranks, which names entries and ranks, where anything else in its state differs:
  /// which slots there are, step counts, hyper-parameters. (A parameter that had no gradient yet has no
  /// slots before init_state().) Nothing has changed then, and a step() is not counted.
  void average(KeyedOptimizer& optimizer) { average_with(&optimizer); }

  std::int64_t steps() const noexcept { return steps_; }
  /// How often values were averaged.
  std::int64_t rounds() const noexcept { return rounds_; }

  StateDict state_dict() const override;
  /// StateError for negative numbers.
  void check_restore(const StateDict& source) const override;
  void restore(const StateDict& source) override;

 private:
  void advance(KeyedOptimizer* optimizer);
  void average_with(KeyedOptimizer* optimizer);

  Communicator communicator_;
  std::vector<NamedParameter> parameters_;
  std::vector<Tensor> buffers_;
  ParameterAveragerOptions options_;
  std::optional<SharedBuffer<float>> floats_;  // what numbers pass through, from the first one on
  std::optional<SharedBuffer<double>> doubles_;
  std::int64_t steps_ = 0;
  std::int64_t rounds_ = 0;
};

}  // namespace lockstep

#pragma GCC visibility pop
