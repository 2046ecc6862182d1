#pragma once

#include <cstdint>
#include <lockstep/lockstep.hpp>
#include <vector>

#include "lockstep/testing/mpi_test.hpp"

LOCKSTEP_TEST_RANKS(2);

namespace lockstep {

using data::Batch;

/// What the snippets of docs/data_parallel.md take for granted.
class Snippets : public ::testing::Test {
 protected:
  static Batch draw(std::uint64_t key, std::int64_t samples) {
    Batch batch{Tensor::empty({samples, 8}), Tensor::empty({samples, 1})};
    fill_uniform(batch.inputs, RandomKey(key), -1, 1);
    fill_uniform(batch.targets, RandomKey(key).fold(1), -1, 1);
    return batch;
  }

  // On each rank others, of other sizes.
  std::vector<Batch> draw_batches(int count) const {
    std::vector<Batch> batches;
    for (int i = 0; i < count; ++i) {
      batches.push_back(draw(static_cast<std::uint64_t>(10 * world.rank() + i), 3 + world.rank()));
    }
    return batches;
  }

  Communicator world = testing::world().duplicate();
  data::TensorDataset samples{draw(1, 33).inputs, draw(1, 33).targets};
  data::DataLoader loader{samples, data::DistributedSampler(33, 8, world.rank(), world.size())};
  std::vector<Batch> batches = draw_batches(4);
  std::vector<Batch> own_batches = draw_batches(1 + 2 * world.rank());
  Batch batch = batches.front();
};

}  // namespace lockstep
