#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/parallel/sharded_optimizer.hpp"
#include "parallel/sharded_training.hpp"

namespace lockstep::testing {

inline const optim::Adam adam({.lr = 0.01, .weight_decay = 0.1});

/// The same training with an optimizer that each rank has whole, and with a sharded one.
struct Pair {
  explicit Pair(const optim::UpdateRule& rule,
                const std::vector<ParamGroupOptions>& groups = {{.params = "*"}})
      : Pair(rule, groups, {}) {}
  Pair(const optim::UpdateRule& rule, const std::vector<ParamGroupOptions>& groups,
       const ShardedOptimizerOptions& options, const Communicator& ranks = world())
      : whole_training(ranks),
        training(ranks),
        whole(whole_training.parameters, rule, groups),
        sharded(training.parameters, rule, groups, ranks, options) {
    whole_training.reduce();
    training.reduce();
  }

  void run(std::uint64_t first, std::uint64_t steps, const std::set<std::string>& without = {}) {
    whole_training.run(whole, first, steps, without);
    training.run(sharded, first, steps, without);
  }
  void expect_same() const {
    EXPECT_TRUE(same(training.values(), whole_training.values()));
    const StateDict gathered = sharded.gather_state_dict();
    if (sharded.communicator().rank() != 0) return;
    EXPECT_TRUE(same(gathered.at("state").as_dict(), whole.state_dict().at("state").as_dict()));
    EXPECT_TRUE(same(gathered, whole.state_dict()));
  }

  DrawnTraining whole_training, training;
  NamedOptimizer whole;
  ShardedOptimizer sharded;
};

}  // namespace lockstep::testing
