#pragma once

#include <cstdint>
#include <functional>

#include "lockstep/nn/module.hpp"
#include "lockstep/parallel/gradient_reducer.hpp"

namespace lockstep {

/// A replica of a model on each rank, kept equal on all: the values of rank 0 to begin with, and
/// gradients that are averaged over all ranks when backward() returns. May be built before or after
/// the optimizer. See GradientReducer for where values and gradients live meanwhile.
class DataParallel {
 public:
  /// Collective. Verifies that parameters and buffers agree in names, shapes and dtypes on all
  /// ranks (NameError, ShapeError or DTypeError on all of them), then copies rank 0's parameters,
  /// buffers and random state to every rank. Each rank gets a random stream of its own. `model`
  /// must outlive this.
  DataParallel(nn::Module& model, const Communicator& communicator);

  Variable operator()(const Variable& x) const { return model_->forward(x); }
  nn::Module& model() const noexcept { return *model_; }
  const Communicator& communicator() const noexcept { return reducer_.communicator(); }

  /// Runs loss(batch).backward() for this rank's share of a global batch, in `parts` pieces, one
  /// after the other, to save memory. `loss` returns the mean over the samples that it is given;
  /// the gradients are then those of the mean over the samples of all ranks, even where these
  /// differ in number. A batch has size() and slice(begin, end); an empty one takes part without
  /// calling `loss`. Returns the mean loss over this rank's samples. Collective.
  template <class Batch, class Loss>
  double backward(const Batch& batch, Loss&& loss, std::int64_t parts = 1) {
    return run_parts(batch.size(), parts, [&](std::int64_t begin, std::int64_t end) -> Variable {
      return parts == 1 ? loss(batch) : loss(batch.slice(begin, end));
    });
  }

 private:
  double run_parts(std::int64_t samples, std::int64_t parts,
                   const std::function<Variable(std::int64_t begin, std::int64_t end)>& loss);

  nn::Module* model_;
  GradientReducer reducer_;
};

}  // namespace lockstep
