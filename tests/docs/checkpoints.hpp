#pragma once

#include <csignal>
#include <iostream>

#include "checkpoint/training.hpp"
#include "lockstep/lockstep.hpp"

LOCKSTEP_TEST_RANKS(2);

namespace lockstep {

/// What the snippets of docs/checkpoints.md take for granted.
class Snippets : public ::testing::Test {
 protected:
  Communicator world = testing::world().duplicate();
  testing::SharedFolder shared;
  const std::filesystem::path folder = shared / "run";
  testing::Training training{world, optim::Adam({.lr = 1e-3})};
  nn::Module& model = training.model;
  NamedOptimizer& optimizer = training.optimizer;
  data::DataLoader& loader = training.loader;
  const std::int64_t epochs = 2;
  const std::filesystem::path file = shared / "checkpoint";

  Snippets() { checkpoint::save(file, world, training.items()); }

  void train_on(const data::Batch&) {}
  double validate() { return 0.5; }
};

}  // namespace lockstep
