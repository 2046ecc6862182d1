#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/optim/named_optimizer.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

/// Alike on all ranks.
struct ShardedOptimizerOptions {
  /// Whether the ranks of a node have one copy of the values, from the first step on, instead of one each.
  /// Nothing but this optimizer may write to them then. Parameters in borrowed memory stay where they are.
  bool shared_replica = false;
};

/// A NamedOptimizer of which each rank steps a share of the numbers, and has the state of these alone: time and
/// memory of a step fall with the number of ranks. (Rajbhandari et al., "ZeRO: Memory Optimizations Toward
/// Training Trillion Parameter Models", arXiv:1910.02054, stage 1.) The results are the same to the bit as
/// those of a NamedOptimizer on each rank, if the ranks have the same values and gradients, as DataParallel
/// gives them.
///
/// What is cut is the memory in which all parameters of groups lie side by side, in reverse order of the list,
/// into parts that differ by no more than 64 bytes for each dtype. Where the rule of a group needs whole
/// parameters, each of these belongs to one rank: the largest first, to who has the least.
///
/// state_dict() has a TensorPart in the place of each slot, which checkpoint::save puts together. So a
/// checkpoint is that of a NamedOptimizer, to the byte, and either of them can load it, on any number of ranks.
/// load_state_dict() takes whole slots as well, of which each rank keeps its share.
///
/// From the first step on, the values lie in memory of this optimizer, which the ranks of a node share, until
/// another owner moves them. Steps and add_param_group() are collective calls on the communicator, among those
/// that a caller makes. What a hook throws on one rank, all throw.
class ShardedOptimizer : public NamedOptimizer {
 public:
  /// As NamedOptimizer, with the same errors on all ranks. Collective. NameError, ShapeError or DTypeError, which
  /// names the first difference and two ranks, where these have other parameters; StateError where they have
  /// other groups or hyper-parameters.
  ShardedOptimizer(const std::vector<NamedParameter>& parameters, const optim::UpdateRule& rule,
                   const Communicator& communicator, const ShardedOptimizerOptions& options = {});
  ShardedOptimizer(const std::vector<NamedParameter>& parameters, const optim::UpdateRule& rule,
                   const std::vector<ParamGroupOptions>& groups, const Communicator& communicator,
                   const ShardedOptimizerOptions& options = {});
  ~ShardedOptimizer() override;
  ShardedOptimizer(ShardedOptimizer&&) noexcept;
  ShardedOptimizer& operator=(ShardedOptimizer&&) noexcept;

  const Communicator& communicator() const noexcept;

  /// Cuts anew, and gives each rank the state of its new share. Collective; the same error on all ranks,
  /// and no group more, where that fails.
  void add_param_group(const ParamGroupOptions& options) override;

  /// state_dict() with whole tensors, as a NamedOptimizer's, on `root`; nothing on the others. Collective.
  StateDict gather_state_dict(int root = 0) const;

  void agree(const std::function<void()>& work) const override;
  bool update(double gradient_scale) override;
  void update(const Parameter& parameter, double gradient_scale) override;

 private:
  friend class StepInReduction;
  struct [[gnu::visibility("hidden")]] Shards;
  class [[gnu::visibility("hidden")]] Stepper;

  void check_alike() const;
  void follow_groups();
  void cut(const std::vector<std::vector<const void*>>& blocks = {});
  void settle_values();

  std::unique_ptr<Shards> shards_;
};

}  // namespace lockstep

#pragma GCC visibility pop
