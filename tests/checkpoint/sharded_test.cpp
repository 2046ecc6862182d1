// Checkpoints of an optimizer whose state is cut over the ranks.

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/training.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/combined_optimizer.hpp"
#include "lockstep/optim/lamb.hpp"
#include "lockstep/parallel/sharded_optimizer.hpp"
#include "optim/all_rules.hpp"
#include "parallel/rank_groups.hpp"
#include "parallel/sharded_training.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep::checkpoint {
namespace sharded_test {

using testing::DrawnTraining;
using testing::every;
using testing::RankGroup;
using testing::read_bytes;
using testing::same;
using testing::SharedFolder;
using testing::throws;
using testing::world;

const optim::Adam adam({.lr = 0.01});

// A state that is the same however many ranks there are.
StateDict drawn_state(const optim::UpdateRule& rule) {
  DrawnTraining training;
  NamedOptimizer optimizer(training.parameters, rule);
  for (std::uint64_t step = 0; step < 2; ++step) {
    for (auto& [name, parameter] : training.parameters) {
      if (name != "b.bias") fill_normal(parameter.mutable_grad(), RandomKey(step), 0, 1);
    }
    optimizer.step();
  }
  return optimizer.state_dict();
}

TEST(Sharded, state_is_saved_to_the_bytes_of_one_that_each_rank_has_whole) {
  const SharedFolder folder;
  for (const auto& rule : testing::all_rules()) {
    SCOPED_TRACE(rule->name());
    const StateDict state = drawn_state(*rule);
    const DrawnTraining training, other;
    NamedOptimizer whole(training.parameters, *rule);
    ShardedOptimizer sharded(other.parameters, *rule, world());
    whole.restore(state);
    sharded.restore(state);
    save(folder / "whole", world(), {{"optimizer", whole}});
    save(folder / "sharded", world(), {{"optimizer", sharded}}, {.buffer_bytes = 1000});
    EXPECT_EQ(read_bytes(folder / "sharded"), read_bytes(folder / "whole"));
    EXPECT_TRUE(same(read_file(folder / "sharded").at("optimizer").as_dict(), state));
  }
}

TEST(Sharded, state_is_loaded_from_any_number_of_ranks_and_by_a_whole_one) {
  const SharedFolder folder;
  for (const bool whole_parameters : {false, true}) {
    const optim::LAMB rule({.adapt = whole_parameters});
    const StateDict state = drawn_state(rule);
    // Saved by the last ranks alone, of each number.
    for (int saving = 1; saving <= world().size(); ++saving) {
      const RankGroup some(every(1, world().size() - saving, world().size()));
      if (some.is_member()) {
        const DrawnTraining training;
        ShardedOptimizer sharded(training.parameters, rule, *some.ranks);
        sharded.restore(state);
        save(folder / "file", *some.ranks, {{"optimizer", sharded}});
      }
      world().barrier();
      const DrawnTraining one, two;
      ShardedOptimizer sharded(one.parameters, rule, world());
      NamedOptimizer whole(two.parameters, rule);
      load(folder / "file", world(), {{"optimizer", sharded}});
      load(folder / "file", world(), {{"optimizer", whole}});
      EXPECT_TRUE(same(whole.state_dict(), state));
      const StateDict gathered = sharded.gather_state_dict(world().size() - 1);
      if (world().rank() + 1 == world().size()) {
        EXPECT_TRUE(same(gathered, state));
      }
      world().barrier();
    }
  }
}

// What a rank asks for of a file, before it has any state.
TEST(Sharded, state_is_wanted_in_parts) {
  const DrawnTraining training;
  const NamedParameter& last = training.parameters.back();
  ShardedOptimizer sharded({training.parameters.begin(), training.parameters.end() - 1}, adam,
                           world());
  NamedOptimizer whole({last}, adam);
  const CombinedOptimizer combined({{"", sharded}, {"whole", whole}});
  std::int64_t numbers = 0;
  const StateDict wanted = combined.wanted();
  for (const auto& [name, slots] : wanted.at("state").as_dict()) {
    for (const auto& [slot, value] : slots.as_dict()) numbers += value.as_part().numbers.size();
  }
  std::int64_t all = 0;
  for (const auto& [name, parameter] : training.parameters) all += 2 * parameter.size();
  all -= 2 * last.parameter.size();
  EXPECT_EQ(world().all_reduce(numbers), world().size() == 1 ? 0 : all);
}

TEST(Sharded, state_of_another_model_is_refused_and_changes_nothing) {
  const SharedFolder folder;
  const StateDict state = drawn_state(adam);
  const DrawnTraining training;
  ShardedOptimizer sharded(training.parameters, adam, world());
  sharded.restore(state);
  save(folder / "file", world(), {{"optimizer", sharded}});
  std::vector<NamedParameter> other = training.parameters;
  other.back() = {"d.weight", Parameter(Tensor::zeros({128}, DType::f64))};
  ShardedOptimizer another(other, adam, world());
  another.init_state();
  const StateDict before = another.gather_state_dict();
  EXPECT_TRUE(throws<CheckpointError>(
      [&] {
        load(folder / "file", world(), {{"optimizer", another}});
      },
      "d.weight", "(129)"));
  EXPECT_TRUE(same(another.gather_state_dict(), before));
}

TEST(Sharded, training_goes_on_from_a_checkpoint_to_the_same_bits) {
  const SharedFolder folder;
  DrawnTraining undisturbed, stopped, resumed;
  ShardedOptimizer one(undisturbed.parameters, adam, world());
  ShardedOptimizer two(stopped.parameters, adam, world());
  ShardedOptimizer three(resumed.parameters, adam, world(), {.shared_replica = true});
  for (DrawnTraining* training : {&undisturbed, &stopped, &resumed}) training->reduce();
  undisturbed.run(one, 0, 5);
  stopped.run(two, 0, 3);
  const StateDict values = stopped.values();
  save(folder / "file", world(), {{"optimizer", two}});
  for (auto& [name, parameter] : resumed.parameters) {
    parameter.mutable_value().copy_from(values.at(name).as_tensor());
  }
  load(folder / "file", world(), {{"optimizer", three}});
  resumed.run(three, 3, 2);
  EXPECT_TRUE(same(resumed.values(), undisturbed.values()));
  const StateDict expected = one.gather_state_dict(), found = three.gather_state_dict();
  if (world().rank() == 0) {
    EXPECT_TRUE(same(found, expected));
  }
}

}  // namespace sharded_test
}  // namespace lockstep::checkpoint
