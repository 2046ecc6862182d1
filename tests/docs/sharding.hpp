#pragma once

#include <functional>
#include <lockstep/lockstep.hpp>
#include <vector>

#include "checkpoint/training.hpp"
#include "lockstep/testing/mpi_test.hpp"

LOCKSTEP_TEST_RANKS(2);

namespace lockstep {

using data::Batch;

/// What the snippets of docs/sharding.md take for granted.
class Snippets : public ::testing::Test {
 protected:
  Communicator world = testing::world().duplicate();
  testing::SharedFolder folder;
  const std::filesystem::path file = folder / "checkpoint";
  data::TensorDataset samples = testing::random_samples(17);
  data::DataLoader loader{samples, data::DistributedSampler(17, 8, world.rank(), world.size())};
  Batch batch = samples.batch(std::vector<std::int64_t>{0, 1, 2});
  nn::Sequential model{nn::Linear(6, 8), nn::ReLU(), nn::Linear(8, 3)};
  const std::function<Variable(const Batch&)> loss = [this](const Batch& batch) {
    return cross_entropy(model(batch.inputs), batch.targets);
  };
};

}  // namespace lockstep
