#pragma once

#include <cstdint>
#include <functional>

#include "lockstep/nn/module.hpp"
#include "lockstep/parallel/gradient_reducer.hpp"

namespace lockstep {

struct DataParallelOptions {
  /// As in GradientReducerOptions.
  std::size_t bucket_bytes = GradientReducerOptions().bucket_bytes;

  /// A power of two, at least the number of ranks; 0 for none. Each global batch is cut into so many
  /// parts, and rank r of R has parts [L·r/R, L·(r+1)/R). The gradient of each part is computed by
  /// itself, with random numbers of its own, and those of all parts are summed in one binary tree: so
  /// training gives the same bits on any number of ranks, for one build and one kind of CPU. Needs
  /// backward() with a batch, and a DistributedSampler that has the same number.
  std::int64_t logical_replicas = 0;
};

/// A replica of a model on each rank, kept equal on all: the values of rank 0 to begin with, and
/// gradients that are averaged over all ranks when backward() returns. May be built before or after
/// the optimizer. See GradientReducer for where values and gradients live meanwhile.
class DataParallel {
 public:
  /// Collective. Verifies that parameters and buffers agree in names, shapes and dtypes on all
  /// ranks (NameError, ShapeError or DTypeError on all of them), then copies rank 0's parameters,
  /// buffers and random state to every rank. Each rank gets a random stream of its own. `model`
  /// must outlive this.
  /// OptionError where options are out of their range.
  DataParallel(nn::Module& model, const Communicator& communicator,
               const DataParallelOptions& options = {});

  Variable operator()(const Variable& x) const;
  nn::Module& model() const noexcept { return *model_; }
  const Communicator& communicator() const noexcept { return reducer_.communicator(); }

  /// Runs loss(batch).backward() for this rank's share of a global batch, in `parts` pieces, one
  /// after the other, to save memory. `loss` returns the mean over the samples that it is given;
  /// the gradients are then those of the mean over the samples of all ranks, even where these
  /// differ in number. A batch has size() and slice(begin, end); an empty one takes part without
  /// calling `loss`. Returns the mean loss over this rank's samples. Collective.
  ///
  /// With logical replicas the pieces are this rank's parts of the global batch, and `parts` must be
  /// 1. Where a rank's batch is not what these parts have, all ranks get an error.
  ///
  /// Where `loss` throws on some ranks, all ranks throw the exception of the lowest one of these, marked
  /// collective(), and gradients are as they were.
  template <class Batch, class Loss>
  double backward(const Batch& batch, Loss&& loss, std::int64_t parts = 1) {
    return run_parts(batch.size(), parts, [&](std::int64_t begin, std::int64_t end) -> Variable {
      return begin == 0 && end == batch.size() ? loss(batch) : loss(batch.slice(begin, end));
    });
  }

 private:
  using PartLoss = std::function<Variable(std::int64_t begin, std::int64_t end)>;
  double run_parts(std::int64_t samples, std::int64_t parts, const PartLoss& loss);
  double run_pieces(std::int64_t samples, std::int64_t pieces, const PartLoss& loss);
  double run_logical_parts(std::int64_t samples, std::int64_t global, const PartLoss& loss);

  nn::Module* model_;
  std::int64_t logical_replicas_;
  GradientReducer reducer_;
};

}  // namespace lockstep
