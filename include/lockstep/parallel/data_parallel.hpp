#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "lockstep/nn/module.hpp"
#include "lockstep/parallel/gradient_reducer.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

class [[gnu::visibility("hidden")]] BatchStatistics;
class [[gnu::visibility("hidden")]] ReplicaBuffers;

/// What becomes of buffers, such as the running statistics of nn::BatchNorm, when gradients are
/// reduced.
enum class ReplicaBufferPolicy {
  average,    ///< numbers: their mean, weighted as the gradients are; counts: the largest
  broadcast,  ///< those of the first rank that has samples
  local,      ///< each rank keeps its own
};

struct DataParallelOptions {
  /// As in GradientReducerOptions.
  std::size_t bucket_bytes = GradientReducerOptions().bucket_bytes;
  GradientReduction reduction = GradientReduction::mean;
  double predivide = 1;
  MissingGradients missing = MissingGradients::zero;
  WireFormat wire = WireFormat::full;
  std::shared_ptr<const GradientCompression> compression = nullptr;
  bool keep_gradients = true;

  ReplicaBufferPolicy buffers = ReplicaBufferPolicy::average;
  /// Whether each nn::BatchNorm takes its statistics over the samples of all ranks, in training: with
  /// weights that are numbers of samples, values and gradients are those of the whole global batch. Each
  /// layer waits for all ranks then, two times in a forward and once in a backward, and so does the end
  /// of a backward. Not with local buffers, which a rank without samples would not move.
  bool synchronise_batch_norm = false;

  /// A power of two, at least the number of ranks; 0 for none. Each global batch is cut into so many
  /// parts, and rank r of R has parts [L·r/R, L·(r+1)/R). The gradient of each part is computed by
  /// itself, with random numbers of its own, and those of all parts are summed in one binary tree: so
  /// training gives the same bits on any number of ranks, for one build and one kind of CPU. Needs
  /// backward() with a batch, and a DistributedSampler that has the same number. Buffers are averaged
  /// over the parts in the same tree: OptionError for another policy, or for synchronise_batch_norm.
  std::int64_t logical_replicas = 0;
};

/// How DataParallel::backward takes a batch.
struct BatchOptions {
  /// How many pieces the batch is cut into, which are computed one after the other to save memory.
  std::int64_t parts = 1;
  /// What the mean over this rank's samples counts in the mean or sum over ranks; the number of
  /// samples where it is not given, and 0 without samples.
  std::optional<double> weight = std::nullopt;
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
  ~DataParallel();
  DataParallel(DataParallel&&) noexcept;
  DataParallel& operator=(DataParallel&&) noexcept;

  Variable operator()(const Variable& x) const;
  nn::Module& model() const noexcept { return *model_; }
  const Communicator& communicator() const noexcept { return reducer_.communicator(); }
  /// What reduces the gradients: for weights where backward() is not the one with a batch, for
  /// accumulation, and for gradients that a caller computes.
  GradientReducer& reducer() noexcept { return reducer_; }
  /// reducer().no_sync()
  [[nodiscard]] std::shared_ptr<const void> no_sync() { return reducer_.no_sync(); }

  /// Runs loss(batch).backward() for this rank's share of a global batch. `loss` returns the mean over
  /// the samples that it is given; the gradients are then those of the mean over the samples of all
  /// ranks, even where these differ in number, or of the sum over them where that is the reduction. A
  /// batch has size() and slice(begin, end); an empty one takes part without calling `loss`. Returns
  /// the mean loss over this rank's samples. Collective.
  ///
  /// Under no_sync() batches add up, each with its samples, without a word to other ranks. The first
  /// one after that reduces them all, to the gradients of one large batch. What a rank throws meanwhile
  /// is an error of that reduction as well, on all ranks. Batches do not add to gradients that other
  /// backwards have left there: StateError, after which these are forgotten.
  ///
  /// With logical replicas the pieces are this rank's parts of the global batch, so that batches of any
  /// size take little memory: `parts` must be 1, there is no weight, and no_sync() is refused. Where a
  /// rank's batch is not what these parts have, all ranks get an error.
  ///
  /// Where `loss` throws on some ranks, all ranks throw the exception of the lowest one of these, marked
  /// collective(), and gradients are as they were.
  template <class Batch, class Loss>
  double backward(const Batch& batch, Loss&& loss, const BatchOptions& options = {}) {
    return run_batch(batch.size(), options, [&](std::int64_t begin, std::int64_t end) -> Variable {
      return begin == 0 && end == batch.size() ? loss(batch) : loss(batch.slice(begin, end));
    });
  }

 private:
  using PartLoss = std::function<Variable(std::int64_t begin, std::int64_t end)>;
  void check_batch(const BatchOptions& options) const;
  double run_batch(std::int64_t samples, const BatchOptions& options, const PartLoss& loss);
  double run_pieces(std::int64_t samples, std::int64_t pieces, double weight, const PartLoss& loss);
  double run_logical_parts(std::int64_t samples, std::int64_t global, const PartLoss& loss);

  void check_buffers(const DataParallelOptions& options) const;
  void synchronise_buffers(const DataParallelOptions& options);
  void end_statistics() noexcept;

  nn::Module* model_;
  std::int64_t logical_replicas_;
  GradientReducer reducer_;
  std::shared_ptr<ReplicaBuffers> buffers_;      // where there are any
  std::shared_ptr<BatchStatistics> statistics_;  // where these are synchronised
};

}  // namespace lockstep

#pragma GCC visibility pop
