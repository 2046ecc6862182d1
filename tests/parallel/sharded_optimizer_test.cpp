// A sharded optimizer next to one that each rank has whole.

#include "lockstep/parallel/sharded_optimizer.hpp"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "lockstep/optim/combined_optimizer.hpp"
#include "lockstep/optim/lamb.hpp"
#include "lockstep/optim/schedule.hpp"
#include "lockstep/optim/scheduler.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/optim/step_in_backward.hpp"
#include "lockstep/parallel/data_parallel.hpp"
#include "lockstep/parallel/join.hpp"
#include "lockstep/parallel/step_in_reduction.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "optim/all_rules.hpp"
#include "parallel/batches.hpp"
#include "parallel/rank_groups.hpp"
#include "parallel/sharded_pair.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace sharded_optimizer_test {

using namespace testing;

// Bytes of the slots that this rank has.
std::size_t slot_bytes(const KeyedOptimizer& optimizer) {
  std::size_t bytes = 0;
  const StateDict state = optimizer.state_dict();
  for (const auto& [name, slots] : state.at("state").as_dict()) {
    for (const auto& [slot, value] : slots.as_dict()) {
      if (const auto* part = std::get_if<TensorPart>(&value.variant())) {
        bytes += part->numbers.bytes();
      } else if (std::holds_alternative<Tensor>(value.variant())) {
        bytes += value.as_tensor().bytes();
      }
    }
  }
  return bytes;
}

TEST(ShardedOptimizer, steps_each_rule_to_the_bits_of_an_optimizer_that_is_whole) {
  for (const auto& rule : all_rules()) {
    for (const bool shared_replica : {false, true}) {
      SCOPED_TRACE(std::string(rule->name()) + (shared_replica ? ", one replica a node" : ""));
      Pair pair(*rule, {{.params = "*"}}, {.shared_replica = shared_replica});
      pair.run(0, 5);
      pair.expect_same();
    }
  }
}

TEST(ShardedOptimizer, may_come_before_or_after_what_reduces_and_outlive_it) {
  for (const bool shared_replica : {false, true}) {
    Pair pair(adam);
    DrawnTraining training;
    training.reduce();
    ShardedOptimizer late(training.parameters, adam, world(), {.shared_replica = shared_replica});
    training.run(late, 0, 2);
    pair.run(0, 2);
    EXPECT_TRUE(same(training.values(), pair.whole_training.values()));
    training.stop_reducing();
    training.reduce();
    training.run(late, 2, 2);
    pair.run(2, 2);
    EXPECT_TRUE(same(training.values(), pair.whole_training.values()));
  }
}

TEST(ShardedOptimizer, gives_each_rank_its_share_of_the_state_to_within_a_line) {
  Pair pair(adam);
  pair.run(0, 1);
  const double share =
      static_cast<double>(slot_bytes(pair.whole)) / static_cast<double>(world().size());
  // A line of each dtype in each of two slots, and the padding of each parameter.
  const double line = 64.0 * 2 * (2 + static_cast<double>(pair.training.parameters.size()));
  EXPECT_NEAR(static_cast<double>(slot_bytes(pair.sharded)), share, line);
}

TEST(ShardedOptimizer, follows_what_is_frozen_and_what_no_rank_has_reached) {
  Pair pair(optim::SGD({.lr = 0.1, .momentum = 0.9, .dampening = 0.4}));
  pair.run(0, 2, {"a.weight", "scalar"});
  pair.expect_same();
  for (DrawnTraining* training : {&pair.whole_training, &pair.training}) {
    training->parameter("c.weight").set_requires_grad(false);
    training->parameter("b.bias").set_requires_grad(false);
  }
  pair.run(2, 2);
  pair.expect_same();
  for (DrawnTraining* training : {&pair.whole_training, &pair.training}) {
    training->parameter("c.weight").set_requires_grad(true);
  }
  pair.run(4, 2, {"d.weight"});
  pair.expect_same();
}

TEST(ShardedOptimizer, moves_state_to_new_shares_when_a_group_is_added) {
  for (const bool whole : {false, true}) {
    const optim::LAMB lamb({.lr = 0.01, .adapt = whole});
    Pair pair(lamb, {{.params = {"a.*", "b.bias"}}, {.params = "d.*", .lr = 0.5}});
    pair.run(0, 3);
    for (KeyedOptimizer* optimizer :
         {static_cast<KeyedOptimizer*>(&pair.whole), static_cast<KeyedOptimizer*>(&pair.sharded)}) {
      optimizer->add_param_group({.params = "c.*", .lr = 0.2, .name = "late"});
    }
    pair.run(3, 3);
    pair.expect_same();
  }
}

TEST(ShardedOptimizer, cuts_anew_when_a_rule_comes_to_need_whole_parameters) {
  Pair pair(optim::LAMB({.lr = 0.01, .adapt = false}),
            {{.params = {"a.*", "b.*"}}, {.params = {"c.*", "d.*"}}});
  pair.run(0, 2);
  for (const bool adapt : {true, false}) {
    pair.whole.param_groups()[1].set({{"adapt", adapt}});
    pair.sharded.param_groups()[1].set({{"adapt", adapt}});
    pair.run(adapt ? 2 : 4, 2);
    pair.expect_same();
  }
}

TEST(ShardedOptimizer, clips_and_follows_schedules_and_hooks_as_any_other) {
  Pair pair(adam, {{.params = {"a.*", "b.*"}}, {.params = {"c.*", "d.*"}, .lr = 0.1}});
  std::vector<std::unique_ptr<Scheduler>> schedulers;
  std::vector<int> calls(2);
  std::size_t i = 0;
  for (KeyedOptimizer* optimizer :
       {static_cast<KeyedOptimizer*>(&pair.whole), static_cast<KeyedOptimizer*>(&pair.sharded)}) {
    optimizer->set_clipping({.value = 0.8, .global_norm = 1.5});
    optimizer->before_step([&calls, i](KeyedOptimizer&) { ++calls[i]; });
    ++i;
    schedulers.push_back(
        std::make_unique<Scheduler>(*optimizer, optim::schedule::cosine({.steps = 6})));
  }
  for (std::uint64_t step = 0; step < 6; ++step) {
    pair.run(step, 1);
    for (const auto& scheduler : schedulers) scheduler->step();
  }
  pair.expect_same();
  EXPECT_EQ(calls, (std::vector<int>{6, 6}));
}

TEST(ShardedOptimizer, works_on_some_of_the_ranks) {
  const int size = world().size();
  const RankGroup even(every(2, 0, size)), odd(every(2, 1, size));
  Pair pair(adam, {{.params = "*"}}, {}, even.is_member() ? *even.ranks : *odd.ranks);
  pair.run(0, 3);
  pair.expect_same();
}

TEST(ShardedOptimizer, loads_what_it_has_saved_and_what_a_whole_one_has) {
  Pair pair(adam);
  pair.run(0, 2);
  const StateDict parts = pair.sharded.state_dict().clone();
  const StateDict state = pair.whole.state_dict().clone();
  const StateDict values = pair.whole_training.values();
  for (const bool by_restore : {false, true}) {
    for (const StateDict& source : {parts, state}) {
      Pair other(adam);
      other.run(7, 1);
      for (auto& [name, parameter] : other.training.parameters) {
        parameter.mutable_value().copy_from(values.at(name).as_tensor());
      }
      for (auto& [name, parameter] : other.whole_training.parameters) {
        parameter.mutable_value().copy_from(values.at(name).as_tensor());
      }
      if (by_restore) {
        other.sharded.restore(source);
        other.whole.restore(state);
      } else {
        other.sharded.load_state_dict(source);
        other.whole.load_state_dict(state);
      }
      other.expect_same();
      other.run(2, 2);
      other.expect_same();
    }
  }
}

TEST(ShardedOptimizer, makes_the_state_that_a_whole_one_makes_without_a_step) {
  Pair pair(optim::Adagrad({.initial_accumulator_value = 0.1}));
  pair.whole.init_state();
  pair.sharded.init_state();
  pair.expect_same();
}

TEST(ShardedOptimizer, leaves_parameters_in_borrowed_memory_where_they_are) {
  for (const bool shared_replica : {false, true}) {
    Pair pair(adam);
    const std::set<std::string> without{"a.weight"};
    pair.run(0, 1);
    pair.run(1, 1, without);
    pair.run(2, 1);
    std::vector<std::vector<float>> memory;
    std::vector<NamedParameter> parameters = drawn_parameters();
    for (NamedParameter& named : parameters) {
      const Tensor value = named.parameter.value();
      if (value.dtype() != DType::f32 || value.size() == 0) continue;
      const auto numbers = value.span<float>();
      memory.emplace_back(numbers.begin(), numbers.end());
      named = {named.name,
               Parameter(Tensor::borrow(std::span<float>(memory.back()), value.shape()))};
    }
    DrawnTraining training(world(), parameters);
    GradientReducer reducer(training.parameters, world());
    ShardedOptimizer optimizer(training.parameters, adam, world(),
                               {.shared_replica = shared_replica});
    std::optional<StepInReduction> in_reduction;
    for (std::uint64_t step = 0; step < 3; ++step) {
      optimizer.zero_grad();
      if (step == 1) in_reduction.emplace(reducer, optimizer);
      training.backward(step, reducer, step == 1 ? without : std::set<std::string>());
      if (step == 0) optimizer.step();
    }
    EXPECT_TRUE(same(training.values(), pair.whole_training.values()));
    EXPECT_TRUE(training.parameter("c.weight").value().borrowed());
  }
}

// Their values are copied past the caches.
TEST(ShardedOptimizer, steps_millions_of_numbers) {
  const auto large = [] {
    Tensor value = Tensor::empty({3'000'001});
    fill_uniform(value, RandomKey(1), -1, 1);
    return std::vector<NamedParameter>{{"large", Parameter(value)}};
  };
  DrawnTraining training(world(), large()), whole_training(world(), large());
  training.reduce();
  whole_training.reduce();
  ShardedOptimizer sharded(training.parameters, adam, world());
  NamedOptimizer whole(whole_training.parameters, adam);
  training.run(sharded, 0, 2);
  whole_training.run(whole, 0, 2);
  EXPECT_TRUE(same(training.values(), whole_training.values()));
}

TEST(ShardedOptimizer, is_a_member_of_a_combined_one) {
  Pair pair(adam);
  DrawnTraining training;
  training.reduce();
  const auto named = training.parameters;
  const auto some = [&named](bool sharded) {
    std::vector<NamedParameter> some;
    for (const NamedParameter& one : named) {
      if ((one.name[0] == 'c') == sharded) some.push_back(one);
    }
    return some;
  };
  ShardedOptimizer of_c(some(true), adam, world());
  NamedOptimizer others(some(false), adam);
  CombinedOptimizer combined({{"c", of_c}, {"others", others}});
  training.run(combined, 0, 3);
  pair.run(0, 3);
  EXPECT_TRUE(same(training.values(), pair.whole_training.values()));
}

TEST(ShardedOptimizer, steps_parameters_in_the_course_of_a_backward) {
  nn::Sequential model = make_model(), expected = make_model();
  DataParallel replica(model, world()), expected_replica(expected, world());
  ShardedOptimizer sharded(model.named_parameters(), adam, world());
  NamedOptimizer whole(expected.named_parameters(), adam);
  const StepInBackward in_backward({sharded});
  for (std::uint64_t step = 0; step < 3; ++step) {
    const Batch all = draw_batch(step, 3 * world().size());
    const Batch batch = all.slice(3 * world().rank(), 3 * world().rank() + 3);
    loss_of(model)(batch).backward();
    whole.zero_grad();
    loss_of(expected)(batch).backward();
    whole.step();
  }
  EXPECT_TRUE(same(model.state_dict(), expected.state_dict()));
}

TEST(ShardedOptimizer, steps_each_rule_in_the_course_of_a_reduction) {
  for (const auto& rule : all_rules()) {
    if (rule->whole_parameters()) continue;
    for (const int kind : {0, 1, 2, 3}) {
      const bool shared_replica = kind % 2 == 1, keep_gradients = kind < 2;
      // Several buckets, and one for all.
      const std::size_t bucket_bytes = shared_replica ? 1000 : std::size_t{1} << 20;
      SCOPED_TRACE(std::string(rule->name()) + (shared_replica ? ", one replica a node" : "") +
                   (keep_gradients ? "" : ", a ring"));
      Pair pair(*rule, {{.params = "*"}}, {.shared_replica = shared_replica});
      DrawnTraining training;
      GradientReducer reducer(training.parameters, world(),
                              {.bucket_bytes = bucket_bytes, .keep_gradients = keep_gradients});
      ShardedOptimizer sharded(training.parameters, *rule, world(),
                               {.shared_replica = shared_replica});
      const StepInReduction in_reduction(reducer, sharded);
      for (std::uint64_t step = 0; step < 5; ++step) {
        const std::set<std::string> without =
            step == 2 ? std::set<std::string>{"a.weight"} : std::set<std::string>();
        training.backward(step, reducer, without);
        EXPECT_FALSE(training.parameter("c.weight").has_grad());
        pair.whole_training.run(pair.whole, step, 1, without);
      }
      EXPECT_TRUE(same(training.values(), pair.whole_training.values()));
      const StateDict gathered = sharded.gather_state_dict();
      if (world().rank() == 0) {
        EXPECT_TRUE(
            same(gathered.at("state").as_dict(), pair.whole.state_dict().at("state").as_dict()));
      }
    }
  }
}

TEST(ShardedOptimizer, steps_models_in_the_course_of_a_reduction) {
  for (const bool keep_gradients : {true, false}) {
    nn::Sequential model = make_model(), expected = make_model();
    DataParallel replica(model, world(), {.bucket_bytes = 100, .keep_gradients = keep_gradients}),
        expected_replica(expected, world());
    ShardedOptimizer sharded(model.named_parameters(), adam, world());
    NamedOptimizer whole(expected.named_parameters(), adam);
    const StepInReduction in_reduction(replica.reducer(), sharded);
    for (std::uint64_t step = 0; step < 6; ++step) {
      for (nn::Module* net :
           {static_cast<nn::Module*>(&model), static_cast<nn::Module*>(&expected)}) {
        for (auto& [name, parameter] : net->named_parameters()) {
          Parameter(parameter).set_requires_grad(step < 2 || step > 3 || name != "0.weight");
        }
      }
      const std::vector<std::int64_t> rows = uneven_rows();
      const Batch all = draw_batch(step, total(rows));
      const Batch batch = rows_of(all, rows, world().rank());
      replica.backward(batch, loss_of(model));
      whole.zero_grad();
      expected_replica.backward(batch, loss_of(expected));
      whole.step();
    }
    EXPECT_TRUE(same(model.state_dict(), expected.state_dict()));
  }
}

TEST(ShardedOptimizer, takes_uneven_inputs_and_gradients_that_add_up) {
  nn::Sequential model = make_model(), expected = make_model();
  DataParallel replica(model, world()), expected_replica(expected, world());
  ShardedOptimizer sharded(model.named_parameters(), adam, world());
  NamedOptimizer whole(expected.named_parameters(), adam);
  std::vector<Batch> batches;
  for (std::uint64_t i = 0; i < 2 + static_cast<std::uint64_t>(world().rank()); ++i) {
    batches.push_back(draw_batch(10 * i + static_cast<std::uint64_t>(world().rank()), 3));
  }
  for (const Batch& batch : JoinedBatches(batches, world())) {
    for (auto [optimizer, data, net] :
         {std::tuple<KeyedOptimizer*, DataParallel*, nn::Module*>(&sharded, &replica, &model),
          {&whole, &expected_replica, &expected}}) {
      optimizer->zero_grad();
      {
        const auto deferral = data->no_sync();
        data->backward(batch, loss_of(*net));
      }
      data->backward(batch, loss_of(*net));
      optimizer->step();
    }
  }
  EXPECT_TRUE(same(model.state_dict(), expected.state_dict()));
}

TEST(ShardedOptimizer, calls_a_closure) {
  Pair pair(adam);
  const double loss = pair.sharded.step([&] {
    pair.training.backward(0);
    return 1.5;
  });
  EXPECT_EQ(loss, 1.5);
  pair.whole_training.run(pair.whole, 0, 1);
  pair.expect_same();
}

}  // namespace sharded_optimizer_test
}  // namespace lockstep
