#pragma once

#include <mpi.h>

#include <cmath>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lockstep/lockstep.hpp"

namespace lockstep::testing {

/// A surrogate as a simulation trains one: a model, an optimizer, and the snapshots that this rank
/// has shown.
class Surrogate {
 public:
  Surrogate(const Communicator& communicator, std::uint64_t seed)
      : communicator_(communicator),
        reservoir_(64 * communicator.size(), {3}, {2}, communicator, {.seed = seed}) {
    model_.initialize(seed);
    replica_ = std::make_unique<DataParallel>(model_, communicator,
                                              DataParallelOptions{.synchronise_batch_norm = true});
    optimizer_ =
        std::make_unique<NamedOptimizer>(model_.named_parameters(), optim::Adam({.lr = 0.01}));
    scheduler_ = std::make_unique<Scheduler>(*optimizer_, optim::schedule::cosine({.steps = 100}));
    trainer_ = std::make_unique<train::Trainer>(communicator, [this] { return step(); });
  }

  /// Shows as many snapshots as this rank has: none on the last of several.
  void observe(int time) {
    const int rank = communicator_.rank(), size = communicator_.size();
    const std::int64_t count = size > 1 && rank + 1 == size ? 0 : 10 + 7 * rank;
    Tensor inputs = Tensor::empty({count, 3}), targets = Tensor::empty({count, 2});
    fill_normal(inputs, RandomKey(static_cast<std::uint64_t>(100 * time + rank)), 0, 1);
    for (std::int64_t i = 0; i < count; ++i) {
      const float* x = inputs.data<float>() + 3 * i;
      targets.data<float>()[2 * i] = std::sin(x[0] * x[1]);
      targets.data<float>()[2 * i + 1] = x[2] - x[0];
    }
    reservoir_.add(inputs, targets);
  }

  train::Trainer& trainer() { return *trainer_; }

  Tensor predict(const Tensor& inputs) {
    const NoGrad no_grad;
    model_.eval();
    const Tensor outputs = model_(inputs).value();
    model_.train();
    return outputs;
  }

  std::vector<checkpoint::Item> items() {
    return {{"model", model_},
            {"optimizer", *optimizer_},
            {"scheduler", *scheduler_},
            {"reservoir", reservoir_}};
  }

  StateDict values() { return model_.state_dict().clone(); }

 private:
  train::StepLoss step() {
    const data::Batch batch = reservoir_.draw(24);
    optimizer_->zero_grad();
    const double loss = replica_->backward(batch, [&](const data::Batch& part) {
      return mean_squared_error(model_(part.inputs), part.targets);
    });
    optimizer_->step();
    scheduler_->step();
    return {loss, batch.size()};
  }

  Communicator communicator_;
  train::Reservoir reservoir_;
  nn::Sequential model_{nn::Linear(3, 16),  nn::BatchNorm(16), nn::GELU(),
                        nn::Linear(16, 16), nn::Tanh(),        nn::Linear(16, 2)};
  std::unique_ptr<DataParallel> replica_;
  std::unique_ptr<NamedOptimizer> optimizer_;
  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<train::Trainer> trainer_;
};

/// A field of the simulation's, recovered by its own gradients with a sharded optimizer that steps
/// in the reduction.
inline void recover_field(const Communicator& communicator, std::vector<double>& field) {
  Parameter k("field", Tensor::borrow(field));
  GradientReducer reducer({k}, communicator);
  ShardedOptimizer optimizer({k}, optim::Adam({.lr = 0.1}), communicator);
  const StepInReduction stepping(reducer, optimizer);
  for (int step = 0; step < 3; ++step) {
    k.mutable_grad().fill(communicator.rank() + 1);
    reducer.mark_ready(k);
    reducer.finish();
  }
}

/// What a simulation may do with lockstep, on a communicator of its own, in a folder that is
/// removed.
inline void whole_road(MPI_Comm host, const CommunicatorOptions& options = {}) {
  Communicator ranks(host, options);
  {
    Surrogate surrogate(ranks, 1);
    std::string folder;
    if (ranks.rank() == 0) {
      folder = std::filesystem::temp_directory_path() / "lockstep-road-XXXXXX";
      folder = mkdtemp(folder.data());
    }
    ranks.broadcast(folder);
    {
      CheckpointManager manager(folder, ranks, surrogate.items(),
                                {.every_steps = 2, .signals = {SIGUSR2}, .background = true});
      manager.load_latest();
      for (int time = 1; time <= 4; ++time) {
        surrogate.observe(time);
        surrogate.trainer().train_for(1e-4);
        manager.step(time);
      }
      manager.wait();
    }
    checkpoint::save(folder + "/last.lockstep", ranks, surrogate.items());
    checkpoint::load(folder + "/last.lockstep", ranks, surrogate.items());
    surrogate.predict(Tensor::zeros({5, 3}));
    std::vector<double> field(50, 1.0);
    recover_field(ranks, field);
    SharedBuffer<float> buffer(ranks, 10);
    buffer.all_reduce();
    ranks.barrier();
    if (ranks.rank() == 0) std::filesystem::remove_all(folder);
  }
  ranks.close();
}

}  // namespace lockstep::testing
