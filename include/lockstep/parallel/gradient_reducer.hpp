#pragma once

#include <memory>
#include <vector>

#include "lockstep/autograd/parameter.hpp"
#include "lockstep/comm/communicator.hpp"

namespace lockstep {

/// Averages the gradients of named parameters over all ranks at the end of every backward, before
/// backward() returns.
///
/// While it lives, the values of the parameters lie in one flat buffer for each dtype and their
/// gradients in another, in reverse order of the list, each at a 64-byte boundary; parameters in
/// borrowed memory stay there. Pointers into them stay valid from construction to destruction.
///
/// A backward adds to the gradient that is there, as in PyTorch; what was averaged before is not
/// counted again. A parameter that a backward reached on some ranks only is averaged with zeros for
/// the others; one that it reached on no rank stays as it was.
class GradientReducer {
 public:
  /// Collective. Throws on all ranks: NameError, ShapeError or DTypeError, which names the first
  /// difference and two ranks, where the lists differ; StateError where a parameter belongs to
  /// another reducer; OptionError for an empty list.
  GradientReducer(std::vector<NamedParameter> parameters, const Communicator& communicator);
  /// Not collective: moves values and gradients back into memory of their own.
  ~GradientReducer();
  GradientReducer(GradientReducer&&) noexcept;
  GradientReducer& operator=(GradientReducer&&) noexcept;

  const Communicator& communicator() const noexcept;

  /// While deferred, gradients add up on this rank and no backward reduces them.
  void set_deferred(bool deferred) noexcept;

  /// Reduces what has come together since the last reduction: the mean over ranks of the local
  /// gradients, weighted by `weight`, such as this rank's number of samples. Collective.
  /// OptionError on all ranks for a weight that is negative or not finite, or a sum of weights of
  /// zero where there is anything to reduce.
  void reduce(double weight = 1.0);

  /// Forgets, on this rank, what has come together since the last reduction; gradients are what
  /// they were then.
  void discard() noexcept;

 private:
  class Engine;
  std::unique_ptr<Engine> engine_;
};

}  // namespace lockstep
