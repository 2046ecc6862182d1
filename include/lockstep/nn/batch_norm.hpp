#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "lockstep/nn/module.hpp"

#pragma GCC visibility push(default)

namespace lockstep::nn {

/// Over which samples a BatchNorm takes its statistics in training: its own replica's, unless one of
/// these sums over more.
class StatisticsReducer {
 public:
  virtual ~StatisticsReducer() = default;
  /// Replaces the numbers by their sums over all replicas, of the same bits on each. Collective.
  virtual void sum(std::span<double> numbers) = 0;
  /// What the gradients of this replica count in the mean over all, such as its number of samples.
  virtual double weight() const = 0;
};

struct BatchNormOptions {
  double eps = 1e-5;                     ///< added to the variance
  std::optional<double> momentum = 0.1;  ///< the share of a new batch; nullopt: 1 / their number
  bool affine = true;                    ///< has weight and bias
  bool track_running_stats = true;       ///< has running_mean, running_var, num_batches_tracked
  DType dtype = DType::f32;
};

/// y = weight · (x - mean) / √(variance + eps) + bias for each channel, with x of shape (n, channels)
/// or (n, channels, d1, …): Ioffe, Szegedy, arXiv:1502.03167. As in PyTorch, mean and variance are in
/// training those of the batch (the variance divides by the number N of a channel's numbers), and
/// move the running ones (whose variance divides by N - 1); in evaluation they are the running ones,
/// or the batch's where none are tracked. Statistics are computed in double, in two passes.
///
/// With a statistics reducer the batch of a training step is that of all replicas. Each of them must
/// then call forward(), those without samples too (n = 0) unless the reducer answers for them, as that
/// of DataParallel does: that has two collective sums, and a backward that comes through it one more. With dy the gradient of a replica's own loss, w the reducer's
/// weight() when the backward comes, and x̂ = (x - mean) / √(variance + eps),
///
///     dx = weight / √(variance + eps) · (dy - (Σ w · dy + x̂ · Σ w · dy · x̂) / (w · N)),
///
/// sums and N being those of all replicas. The gradient of the mean loss Σ w · loss / Σ w is then
/// w / Σ w times dx; and for a parameter, here or in front of here, it is the mean of the replicas'
/// gradients, Σ w · gradient / Σ w. With w = n and losses that are means over samples, all this is the
/// gradient of the mean over the samples of all. Those of weight and bias are the replica's own,
/// Σ dy · x̂ and Σ dy, for the mean to be taken of. A replica of weight 0 adds nothing to the sums of
/// a backward.
///
/// OptionError unless channels ≥ 1, eps > 0, and 0 ≤ momentum ≤ 1. In forward(): ShapeError for
/// other channels, DTypeError for another dtype, and StateError where the statistics of a batch are
/// those of less than two numbers a channel; none of them changes the running ones.
class BatchNorm : public Module {
 public:
  explicit BatchNorm(std::int64_t channels, const BatchNormOptions& options = {});

  void visit(Visitor& visitor) override;
  Variable forward(const Variable& x) override;

  std::int64_t channels() const noexcept { return channels_; }
  /// Starts to track anew: mean 0, variance 1, of no batch.
  void reset_running_stats();
  /// Sums statistics over more than this replica's samples; with nullptr no longer. Copies that are
  /// made afterwards have the same reducer.
  void set_statistics_reducer(std::shared_ptr<StatisticsReducer> reducer);

  Parameter weight;            ///< (channels), starts as 1; undefined unless affine
  Parameter bias;              ///< (channels), starts as 0; undefined unless affine
  Tensor running_mean;         ///< (channels); undefined unless tracked, as the next two
  Tensor running_var;          ///< (channels)
  Tensor num_batches_tracked;  ///< (), i64

 protected:
  void reset_parameters(RandomKey key) override;

 private:
  std::int64_t channels_;
  BatchNormOptions options_;
  std::shared_ptr<StatisticsReducer> reducer_;
};

}  // namespace lockstep::nn

#pragma GCC visibility pop
