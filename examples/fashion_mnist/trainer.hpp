#pragma once

#include <chrono>
#include <cstdint>
#include <lockstep/lockstep.hpp>
#include <memory>
#include <optional>
#include <vector>

#include "options.hpp"
#include "score.hpp"

/// 784-512-512-10, or two convolutions of 3 × 3 to 32 and 64 channels, each with pooling of 2 × 2, and 3136-128-10; with
/// a BatchNorm after each convolution or hidden layer of the first if there is to be one.
lockstep::nn::Sequential make_model(const Options& options);

/// Some steps of training, on all ranks together.
struct Interval {
  Score score;
  double seconds = 0;
  /// The share of its time that each rank has waited for others, on rank 0; none where no gradients
  /// are reduced.
  std::vector<double> waiting = {};
  std::int64_t skipped = 0;  ///< steps

  double mean_waiting() const;  ///< NaN where there is none
};

/// The steps of training, as the options ask for them.
class Trainer {
 public:
  /// Collective. The model must outlive it.
  Trainer(lockstep::nn::Module& model, const lockstep::optim::UpdateRule& rule,
          const Options& options, const lockstep::Communicator& ranks);
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  void begin_epoch();
  /// Trains on this rank's part of a batch. Returns whether that has completed a step. Collective.
  bool take(const lockstep::data::Batch& batch);
  /// Completes the step for which batches are left, and makes replicas alike that were not meant to
  /// be. Returns whether there was such a step. Collective.
  bool end_epoch();

  lockstep::NamedOptimizer& optimizer() { return *optimizer_; }
  /// What a checkpoint needs beside the model.
  std::vector<lockstep::checkpoint::Item> state();

  /// What has happened since the last call, or since begin_epoch(). Collective.
  Interval take_interval();
  /// Whether steps are skipped where gradients are not finite.
  bool may_skip() const;
  /// Nothing where the loss is not scaled.
  std::optional<double> loss_scale() const;

 private:
  lockstep::Variable loss(const lockstep::data::Batch& batch);
  void backward(const lockstep::data::Batch& batch);
  void step();

  Options options_;
  lockstep::Communicator ranks_;
  lockstep::nn::Module* model_;
  std::optional<lockstep::DataParallel> replica_;  // this, or in local SGD the averager
  std::optional<lockstep::ParameterAverager> averager_;
  std::unique_ptr<lockstep::NamedOptimizer> optimizer_;
  std::optional<lockstep::StepInReduction> in_reduction_;
  std::optional<lockstep::optim::LossScale> loss_scale_;
  std::optional<lockstep::ReplicaCheck> check_;
  std::int64_t batches_ = 0;  // of the step to come
  Score score_;               // of this rank in this interval
  std::int64_t skipped_ = 0;  // in this interval
  double waited_ = 0;         // before this interval
  std::chrono::steady_clock::time_point start_;
};
