#pragma once

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "lockstep/optim/keyed_optimizer.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

/// While one exists, a backward steps each parameter as soon as its gradient is final, by those of
/// the optimizers that have it in a group, in their order; then the gradient is released. So there
/// are never gradients of all parameters at once, unless a reducer keeps them in a buffer.
///
/// Each backward is a step: hooks of the optimizers around steps are not called, and clipping by
/// the global norm is impossible. A backward that ends by an exception has stepped the parameters
/// that it had come to, and zero_grad() must forget what it left of the others. The graph of such a
/// backward must not be used again, nor what shares a parameter's memory, as detach() does, go into
/// a loss beside the parameter.
class StepInBackward {
 public:
  using Optimizers = std::vector<std::reference_wrapper<KeyedOptimizer>>;

  /// The optimizers must outlive it. Parameters of groups that are added later are not stepped.
  /// StateError where a parameter is stepped in backward already; OptionError where there is no
  /// optimizer, one comes twice, or one clips by the global norm.
  explicit StepInBackward(Optimizers optimizers, const StepOptions& options = {});
  ~StepInBackward();
  StepInBackward(const StepInBackward&) = delete;
  StepInBackward& operator=(const StepInBackward&) = delete;

 private:
  std::vector<std::pair<Parameter, std::int64_t>> hooks_;
};

}  // namespace lockstep

#pragma GCC visibility pop
