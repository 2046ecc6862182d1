// What goes wrong with a sharded optimizer.

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "comm/placements.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/optim/combined_optimizer.hpp"
#include "lockstep/optim/lamb.hpp"
#include "lockstep/parallel/compression.hpp"
#include "lockstep/parallel/step_in_reduction.hpp"
#include "parallel/sharded_pair.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace sharded_errors_test {

using namespace testing;

TEST(ShardedOptimizer, refuses_on_all_ranks_what_some_of_them_get_wrong) {
  const bool differs = world().rank() == world().size() - 1;
  const auto refused = [&](auto error, const std::vector<NamedParameter>& parameters,
                           const optim::UpdateRule& rule, const std::string& why) {
    return throws<decltype(error)>([&] { ShardedOptimizer(parameters, rule, world()); },
                                   why.c_str());
  };
  const std::vector<NamedParameter> good = drawn_parameters();
  EXPECT_TRUE(refused(OptionError(""), differs ? std::vector<NamedParameter>() : good, adam,
                      "got no parameters"));
  std::vector<NamedParameter> twice = good;
  if (differs) twice.emplace_back("scalar", Parameter(Tensor::zeros({2})));
  EXPECT_TRUE(refused(NameError(""), twice, adam, "two parameters are called 'scalar'"));
  std::vector<NamedParameter> undefined = good;
  if (differs) undefined.emplace_back("none", Parameter());
  EXPECT_TRUE(refused(StateError(""), undefined, adam, "'none' is undefined"));
  if (world().size() == 1) return;

  std::vector<NamedParameter> fewer = good, other = good, another = good;
  if (differs) {
    fewer.pop_back();
    other.back() = {"d.weight", Parameter(Tensor::zeros({130}, DType::f64))};
    another.back() = {"d.weight", Parameter(Tensor::zeros({129}))};
  }
  EXPECT_TRUE(refused(NameError(""), fewer, adam, "'d.weight' f64 (129) on rank 0 and missing"));
  EXPECT_TRUE(refused(ShapeError(""), other, adam, "(130)"));
  EXPECT_TRUE(refused(DTypeError(""), another, adam, "f32"));
  EXPECT_TRUE(
      refused(StateError(""), good, optim::Adam({.lr = differs ? 0.2 : 0.1}), "param_groups/0/lr"));
  ShardedOptimizer optimizer(good, adam, {{.params = "a.*"}}, world());
  const std::vector<std::string> before = optimizer.group_names();
  EXPECT_TRUE(throws<StateError>(
      [&] { optimizer.add_param_group({.params = differs ? "c.*" : "b.*"}); }, "param_groups/1"));
  EXPECT_TRUE(throws<NameError>(
      [&] { optimizer.add_param_group({.params = differs ? "x.*" : "b.*"}); }, "x.*"));
  EXPECT_EQ(optimizer.group_names(), before);
  optimizer.add_param_group({.params = "b.*"});
  EXPECT_EQ(optimizer.group_names().size(), 2U);
}

TEST(ShardedOptimizer, refuses_a_share_that_is_not_its_own) {
  Pair pair(adam);
  pair.run(0, 1);
  StateDict state = pair.sharded.state_dict().clone();
  StateValue& slot = state["state"].as_dict()["c.weight"].as_dict()["exp_avg"];
  const StateDict before = pair.sharded.state_dict().clone();
  slot = TensorPart{.shape = {64, 50}, .begin = 1, .numbers = Tensor::zeros({7})};
  if (world().size() == 1) {
    EXPECT_TRUE(throws<StateError>([&] { pair.sharded.restore(state); }, "found a part"));
  } else {
    EXPECT_TRUE(throws<StateError>([&] { pair.sharded.restore(state); },
                                   "exp_avg of parameter c.weight", "found 1 to 8"));
    slot = TensorPart{.shape = {50, 64}, .begin = 0, .numbers = Tensor::zeros({7})};
    EXPECT_TRUE(throws<ShapeError>([&] { pair.sharded.restore(state); }, "(64, 50)", "(50, 64)"));
  }
  slot = Tensor::zeros({50, 64});
  EXPECT_TRUE(throws<ShapeError>([&] { pair.sharded.restore(state); }, "(64, 50)", "(50, 64)"));
  slot = Tensor::zeros({64, 50}, DType::f64);
  EXPECT_TRUE(throws<DTypeError>([&] { pair.sharded.restore(state); }, "f32", "f64"));
  EXPECT_TRUE(bit_equal(pair.sharded.state_dict(), before));
}

TEST(StepInReduction, is_refused_where_it_cannot_be_exact) {
  const auto refused = [](auto error, const optim::UpdateRule& rule,
                          const GradientReducerOptions& options, const std::string& why,
                          const auto& change) {
    DrawnTraining training;
    GradientReducer reducer(training.parameters, world(), options);
    std::vector<NamedParameter> parameters = training.parameters;
    ShardedOptimizer optimizer(parameters, rule, world());
    change(training, reducer, optimizer);
    return throws<decltype(error)>([&] { StepInReduction(reducer, optimizer); }, why.c_str());
  };
  const auto nothing = [](DrawnTraining&, GradientReducer&, ShardedOptimizer&) {};
  const OptionError option("");
  const StateError state("");
  EXPECT_TRUE(refused(option, optim::LAMB(), {}, "whole parameters", nothing));
  EXPECT_TRUE(refused(option, adam, {}, "clip",
                      [](DrawnTraining&, GradientReducer&, ShardedOptimizer& optimizer) {
                        optimizer.set_clipping({.global_norm = 1});
                      }));
  if (world().size() == 1) return;
  EXPECT_TRUE(
      refused(option, adam, {.missing = MissingGradients::leave_out}, "leave_out", nothing));
  EXPECT_TRUE(
      refused(option, adam, {.compression = std::make_shared<TopK>()}, "compression", nothing));
  EXPECT_TRUE(refused(state, adam, {}, "there are gradients",
                      [](DrawnTraining& training, GradientReducer& reducer, ShardedOptimizer&) {
                        training.backward(0, reducer);
                      }));
  DrawnTraining training;
  GradientReducer reducer(training.parameters, world());
  ShardedOptimizer optimizer(training.parameters, adam, world());
  {
    const StepInReduction in_reduction(reducer, optimizer);
    EXPECT_TRUE(throws<StateError>([&] { StepInReduction(reducer, optimizer); }, "already"));
  }
  const StepInReduction again(reducer, optimizer);
  ShardedOptimizer fewer({training.parameters.begin() + 1, training.parameters.end()}, adam,
                         world());
  EXPECT_TRUE(throws<OptionError>([&] { StepInReduction(reducer, fewer); }, "no group"));
}

TEST(StepInReduction, refuses_groups_that_change_meanwhile) {
  if (world().size() == 1) return;
  for (const bool steps : {false, true}) {
    DrawnTraining training;
    const NamedParameter other{"other", Parameter(Tensor::zeros({5}))};
    std::vector<NamedParameter> known = training.parameters;
    known.push_back(other);
    GradientReducer reducer(training.parameters, world());
    ShardedOptimizer optimizer(known, optim::LAMB({.adapt = false}),
                               {{.params = {"scalar", "empty", "?.*"}}}, world());
    const StepInReduction in_reduction(reducer, optimizer);
    training.backward(0, reducer);
    EXPECT_TRUE(throws<StateError>([&] { StepInReduction(reducer, optimizer); }, "already"));
    EXPECT_TRUE(throws<StateError>([&] { optimizer.add_param_group({.params = "other"}); },
                                   "a param group is added"));
    training.backward(1, reducer);
    const StateDict before = training.values();
    optimizer.param_groups().front().set({{"adapt", true}});
    EXPECT_TRUE(throws<StateError>(
        [&] {
          if (!steps) return training.backward(2, reducer);
          training.parameter("scalar").mutable_grad();
          optimizer.step();
        },
        "whole parameters"));
    EXPECT_TRUE(same(training.values(), before));
    world().barrier();
  }
}

TEST(StepInReduction, tells_all_ranks_of_a_group_that_changes_on_one) {
  if (world().size() == 1) return;
  DrawnTraining training;
  GradientReducer reducer(training.parameters, world());
  ShardedOptimizer optimizer(training.parameters, optim::LAMB({.adapt = false}), world());
  const StepInReduction in_reduction(reducer, optimizer);
  if (world().rank() == 1) optimizer.param_groups().front().set({{"adapt", true}});
  EXPECT_TRUE(throws<StateError>([&] { training.backward(0, reducer); }, "whole parameters"));
  world().barrier();
}

TEST(StepInReduction, leaves_a_reduction_unusable_in_the_course_of_which_it_ends) {
  if (world().size() == 1) return;
  for (const Arrangement& arrangement : arrangements()) {
    for (const bool keep_gradients : {true, false}) {
      SCOPED_TRACE(arrangement.name);
      Communicator ranks(world().handle(), arrangement.options);
      {
        DrawnTraining training(ranks);
        GradientReducer reducer(training.parameters, ranks,
                                {.bucket_bytes = 100, .keep_gradients = keep_gradients});
        ShardedOptimizer optimizer(training.parameters, adam, ranks);
        std::optional<StepInReduction> in_reduction(std::in_place, reducer, optimizer);
        for (auto named = training.parameters.rbegin(); named != training.parameters.rend();
             ++named) {
          named->parameter.mutable_grad().fill(1);
          reducer.mark_ready(named->parameter);
        }
        world().barrier();  // else one may still mark a gradient ready, which throws as well
        in_reduction.reset();
        EXPECT_TRUE(throws<StateError>([&] { reducer.finish(); }, "StepInReduction"));
        world().barrier();
      }
      ranks.close();
    }
  }
}

TEST(ShardedOptimizer, throws_on_all_ranks_what_a_hook_throws_on_one) {
  Pair pair(adam);
  DrawnTraining other;
  other.reduce();
  NamedOptimizer whole({other.parameters.front()}, adam);
  ShardedOptimizer member({other.parameters.begin() + 1, other.parameters.end()}, adam, world());
  CombinedOptimizer combined({{"whole", whole}, {"sharded", member}});
  const auto fails_once = [](KeyedOptimizer& optimizer, bool after) {
    const auto fail = [failed = std::make_shared<bool>()] {
      if (world().rank() == world().size() - 1 && !std::exchange(*failed, true)) {
        throw DataError("bad hook");
      }
    };
    if (after) {
      optimizer.after_step([fail](KeyedOptimizer&, const StepReport&) { fail(); });
    } else {
      optimizer.before_step([fail](KeyedOptimizer&) { fail(); });
    }
  };
  pair.run(0, 1);
  other.run(combined, 0, 1);
  for (const bool after : {false, true}) {
    fails_once(pair.sharded, after);
    fails_once(combined, after);
    const StateDict before = pair.training.values();
    pair.training.backward(1);
    EXPECT_TRUE(throws<DataError>([&] { pair.sharded.step(); }, "bad hook"));
    other.backward(1);
    EXPECT_TRUE(throws<DataError>([&] { combined.step(); }, "bad hook"));
    if (!after) {
      EXPECT_TRUE(same(pair.training.values(), before));
    }
    pair.sharded.step();
    combined.step();
  }
}

TEST(ShardedOptimizer, notices_a_step_that_others_do_not_make) {
  if (world().size() == 1) return;
  Communicator ranks = world().duplicate();
  DrawnTraining training(ranks);
  training.reduce();
  ShardedOptimizer optimizer(training.parameters, adam, ranks);
  training.run(optimizer, 0, 1);
  training.backward(1);
  EXPECT_TRUE(throws<StateError>(
      [&] {
        if (world().rank() == 0) {
          optimizer.step();
        } else {
          training.backward(2);
        }
      },
      "rank 0", "rank"));
}

}  // namespace sharded_errors_test
}  // namespace lockstep
