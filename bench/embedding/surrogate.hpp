#pragma once

#include <cstdint>
#include <lockstep/lockstep.hpp>
#include <span>
#include <vector>

#include "embedding/solver.hpp"

/// What a solver trains beside its steps: 4 numbers of a cell to 2 others.
class Surrogate {
 public:
  static constexpr std::int64_t inputs = 4, outputs = 2, cells = 200;

  explicit Surrogate(MPI_Comm communicator) : ranks_(communicator) {}

  /// Shows some cells of the field, and what they are to be mapped to.
  void observe(const Solver& solver) {
    for (std::size_t i = 0; i < shown_.size(); ++i)
      shown_[i] = static_cast<float>(solver.field()[i]);
    for (std::size_t i = 0; i < wanted_.size(); ++i) wanted_[i] = shown_[2 * i] * shown_[2 * i + 1];
    reservoir_.add(lockstep::Tensor::borrow(std::span(shown_), {cells, inputs}),
                   lockstep::Tensor::borrow(std::span(wanted_), {cells, outputs}));
  }

  lockstep::train::Trainer& trainer() { return trainer_; }

 private:
  lockstep::train::StepLoss step() {
    const lockstep::data::Batch batch = reservoir_.draw(64 * ranks_.size());
    optimizer_.zero_grad();
    const double loss = replica_.backward(batch, [this](const lockstep::data::Batch& part) {
      return lockstep::mean_squared_error(model_(part.inputs), part.targets);
    });
    optimizer_.step();
    return {loss, batch.size()};
  }

  lockstep::Communicator ranks_;
  lockstep::nn::Sequential model_{lockstep::nn::Linear(inputs, 32), lockstep::nn::Tanh(),
                                  lockstep::nn::Linear(32, 32), lockstep::nn::Tanh(),
                                  lockstep::nn::Linear(32, outputs)};
  lockstep::DataParallel replica_{model_, ranks_};
  lockstep::NamedOptimizer optimizer_{model_.named_parameters(),
                                      lockstep::optim::Adam({.lr = 1e-3})};
  lockstep::train::Reservoir reservoir_{20000, {inputs}, {outputs}, ranks_};
  lockstep::train::Trainer trainer_{ranks_, [this] { return step(); }};
  std::vector<float> shown_ = std::vector<float>(cells * inputs);
  std::vector<float> wanted_ = std::vector<float>(cells * outputs);
};
