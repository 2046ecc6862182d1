#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lockstep/autograd/losses.hpp"
#include "lockstep/autograd/operations.hpp"
#include "lockstep/checkpoint/checkpoint.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/data/data_loader.hpp"
#include "lockstep/nn/layers.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/parallel/data_parallel.hpp"
#include "lockstep/state/scalars.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/shared_folder.hpp"

namespace lockstep::testing {

inline data::TensorDataset random_samples(std::int64_t count) {
  Tensor inputs = Tensor::empty({count, 6}), targets = Tensor::empty({count}, DType::i64);
  fill_normal(inputs, RandomKey(11), 0, 1);
  const RandomKey labels(12);
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    targets.data<std::int64_t>()[i] = static_cast<std::int64_t>(labels.below(3, i));
  }
  return {inputs, targets};
}

/// All that a training run consists of, with dropout. The last batch of an epoch has one sample, so
/// that all ranks but one have none.
class Training {
 public:
  Training(const Communicator& ranks, const optim::UpdateRule& rule, std::uint64_t seed = 1)
      : samples_(random_samples(17)),
        model(make_model(seed)),
        replica_(model, ranks),
        optimizer(model.named_parameters(), rule),
        loader(samples_, data::DistributedSampler(17, 8, ranks.rank(), ranks.size(), {.seed = 5})) {
  }
  Training(const Training&) = delete;
  Training& operator=(const Training&) = delete;

  void run(int steps) {
    while (steps > 0) {
      for (const data::Batch& batch : loader) {
        optimizer.zero_grad();
        const double loss = replica_.backward(batch, [&](const data::Batch& part) {
          return cross_entropy(model(part.inputs), part.targets);
        });
        optimizer.step();
        loss_sum += replica_.communicator().all_reduce(loss);
        ++step;
        if (--steps == 0) break;
      }
    }
  }

  /// A step that throws on all ranks, on rank 0 later than on the others.
  void fail_step() {
    for (const data::Batch& batch : loader) {
      EXPECT_THROW(replica_.backward(batch,
                                     [&](const data::Batch& part) -> Variable {
                                       if (world().rank() == 0) model(part.inputs);
                                       throw DataError("bad sample");
                                     }),
                   DataError);
      break;
    }
  }

  std::vector<checkpoint::Item> items() {
    return {
        {"model", model}, {"optimizer", optimizer}, {"loader", loader}, {"progress", progress_}};
  }

  /// What items() hold now, in memory of its own.
  StateDict state() {
    StateDict state;
    for (const checkpoint::Item& item : items()) state[item.name] = item.object->state_dict();
    return state.clone();
  }

 private:
  static nn::Sequential make_model(std::uint64_t seed) {
    nn::Sequential model{nn::Linear(6, 8), nn::ReLU(), nn::Dropout(0.25), nn::Linear(8, 3)};
    model.initialize(seed);
    return model;
  }

  data::TensorDataset samples_;

 public:
  nn::Sequential model;

 private:
  DataParallel replica_;

 public:
  NamedOptimizer optimizer;
  data::DataLoader loader;
  std::int64_t step = 0;
  double loss_sum = 0;

 private:
  Scalars progress_{{{"step", &step}, {"loss_sum", &loss_sum}}};
};

inline optim::SGD momentum_sgd() {
  return optim::SGD({.lr = 0.1, .momentum = 0.9, .dampening = 0.5});
}

}  // namespace lockstep::testing
