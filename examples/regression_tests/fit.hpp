#pragma once

#include <cmath>
#include <lockstep/lockstep.hpp>

/// Fits a small network to sin(3x)·cos(2y): with the same parameters, to the bit, on 1, 2 and 4 ranks.
class Fit {
 public:
  explicit Fit(const lockstep::Communicator& ranks)
      : ranks_(ranks),
        samples_(draw()),
        replica_(model_, ranks, {.logical_replicas = parts}),
        optimizer_(model_.named_parameters(), lockstep::optim::Adam({.lr = 0.01})),
        loader_(samples_, {samples_.size(),
                           32,
                           ranks.rank(),
                           ranks.size(),
                           {.seed = 1, .logical_replicas = parts}}) {}

  /// Trains on all samples once; returns the mean loss of the batches, of all ranks.
  double train_epoch() {
    double sum = 0;
    for (const lockstep::data::Batch& batch : loader_) {
      optimizer_.zero_grad();
      sum += replica_.backward(batch, [&](const lockstep::data::Batch& part) {
        return lockstep::mean_squared_error(model_(part.inputs), part.targets);
      });
      optimizer_.step();
    }
    return ranks_.all_reduce(sum, lockstep::ReduceOp::mean) /
           static_cast<double>(loader_.batches_per_epoch());
  }

  lockstep::StateDict state() const {
    return {{"model", model_.state_dict()}, {"optimizer", optimizer_.state_dict()}};
  }

 private:
  static constexpr std::int64_t parts = 4;

  static lockstep::data::TensorDataset draw();
  static lockstep::nn::Sequential initialized();

  lockstep::Communicator ranks_;
  lockstep::data::TensorDataset samples_;
  lockstep::nn::Sequential model_ = initialized();
  lockstep::DataParallel replica_;
  lockstep::NamedOptimizer optimizer_;
  lockstep::data::DataLoader loader_;
};

inline lockstep::data::TensorDataset Fit::draw() {
  using lockstep::Tensor;
  constexpr std::int64_t count = 256;
  Tensor inputs = Tensor::empty({count, 2}), targets = Tensor::empty({count, 1});
  lockstep::fill_normal(inputs, lockstep::RandomKey(2), 0, 1);
  for (std::int64_t i = 0; i < count; ++i) {
    const float* xy = inputs.data<float>() + 2 * i;
    targets.data<float>()[i] = std::sin(3 * xy[0]) * std::cos(2 * xy[1]);
  }
  return {inputs, targets};
}

inline lockstep::nn::Sequential Fit::initialized() {
  using namespace lockstep;
  nn::Sequential model{nn::Linear(2, 32), nn::Tanh(), nn::Linear(32, 1)};
  model.initialize(3);
  return model;
}
