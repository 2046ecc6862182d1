#include <cmath>
#include <string>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "optim/small_parameters.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace named_optimizer_restore_test {

using namespace testing;
using optim::Adam;
using optim::AdamW;
using optim::SGD;

class Restore : public ::testing::Test {
 protected:
  // That restore and check_restore refuse, and nothing changes.
  template <class E>
  ::testing::AssertionResult refused(NamedOptimizer& optimizer, const StateDict& source,
                                     const std::string& message) {
    const StateDict before = snapshot(optimizer, parameters_);
    EXPECT_TRUE(throws<E>([&] { optimizer.check_restore(source); }, message));
    const auto result = throws<E>([&] { optimizer.restore(source); }, message);
    EXPECT_TRUE(bit_equal(before, snapshot(optimizer, parameters_)));
    return result;
  }

  // Only "b" gets a gradient.
  void step_b(NamedOptimizer& optimizer) {
    optimizer.zero_grad();
    parameters_[1].parameter.mutable_grad().fill(0.5);
    optimizer.step();
  }

  std::vector<NamedParameter> parameters_ = small_parameters();
};

TEST_F(Restore, needs_no_state_of_its_own) {
  NamedOptimizer source(parameters_, Adam());
  train(source, parameters_, 3);
  NamedOptimizer target(parameters_, Adam({.lr = 0.5}));
  target.check_restore(source.state_dict());
  EXPECT_TRUE(target.state_dict().at("state").as_dict().empty());
  target.restore(source.state_dict());
  EXPECT_TRUE(bit_equal(source.state_dict(), target.state_dict()));
}

TEST_F(Restore, leaves_absent_what_was_absent) {
  NamedOptimizer source(parameters_, Adam());
  step_b(source);
  NamedOptimizer target(parameters_, Adam());
  train(target, parameters_, 3);
  target.restore(source.state_dict());
  EXPECT_TRUE(bit_equal(source.state_dict(), target.state_dict()));
  EXPECT_EQ(target.state_dict().at("state").as_dict().size(), 1U);
}

// The state that was there before restore() must not shine through where the source has none.
template <class Rule>
void expect_next_steps_of_the_source(const Rule& rule) {
  std::vector<NamedParameter> expected = small_parameters(), found = small_parameters();
  NamedOptimizer source(expected, rule);
  NamedOptimizer target(found, rule);
  train(target, found, 3);
  for (std::size_t i = 0; i < found.size(); ++i) {
    found[i].parameter.mutable_value().copy_from(expected[i].parameter.value());
  }
  target.restore(source.state_dict());
  train(source, expected, 2, 10);
  train(target, found, 2, 10);
  EXPECT_TRUE(bit_equal(snapshot(source, expected), snapshot(target, found)));
}

TEST_F(Restore, of_an_absent_state_starts_afresh) {
  expect_next_steps_of_the_source(Adam({.lr = 0.1}));
  expect_next_steps_of_the_source(AdamW({.lr = 0.1}));
  // An absent momentum takes the whole first gradient, a zero one the dampened share of it.
  expect_next_steps_of_the_source(SGD({.lr = 0.1, .momentum = 0.9, .dampening = 0.5}));
}

TEST_F(Restore, of_an_absent_state_forgets_numbers_that_are_not_finite) {
  NamedOptimizer source(parameters_, SGD({.lr = 0.1, .momentum = 0.9}));
  NamedOptimizer target(parameters_, SGD({.lr = 0.1, .momentum = 0.9}));
  parameters_[0].parameter.mutable_grad().fill(HUGE_VAL);
  target.step();
  target.restore(source.state_dict());
  parameters_[0].parameter.mutable_value().fill(1);
  parameters_[0].parameter.mutable_grad().fill(1);
  target.step();
  EXPECT_TRUE(
      bit_equal(state_of(target, "a").at("momentum_buffer").as_tensor(), Tensor::full({3, 2}, 1)));
}

TEST_F(Restore, with_dampening_differs_from_load_after_init_state) {
  const SGD rule({.lr = 0.1, .momentum = 0.9, .dampening = 0.5});
  NamedOptimizer source(parameters_, rule);
  NamedOptimizer target(parameters_, rule);
  target.init_state();
  target.restore(source.state_dict());
  parameters_[0].parameter.mutable_grad().fill(2);
  target.step();
  EXPECT_TRUE(
      bit_equal(state_of(target, "a").at("momentum_buffer").as_tensor(), Tensor::full({3, 2}, 2)));
}

TEST_F(Restore, refuses_another_rule) {
  NamedOptimizer source(parameters_, Adam());
  NamedOptimizer target(parameters_, AdamW());
  train(source, parameters_, 1);
  train(target, parameters_, 1);
  EXPECT_TRUE(refused<StateError>(target, source.state_dict(),
                                  "the state is of Adam, this optimizer is AdamW"));
}

TEST_F(Restore, refuses_other_groups) {
  const SGD rule({.lr = 0.1, .momentum = 0.9});
  const Parameter a = parameters_[0].parameter, b = parameters_[1].parameter;
  NamedOptimizer both(parameters_, rule, {{.params = {a, b}}});
  NamedOptimizer each(parameters_, rule, {{.params = a}, {.params = b}});
  NamedOptimizer swapped(parameters_, rule, {{.params = b}, {.params = a}});
  NamedOptimizer only_a(parameters_, rule, {{.params = a}});
  for (NamedOptimizer* optimizer : {&both, &each, &swapped, &only_a}) {
    train(*optimizer, parameters_, 1);
  }
  EXPECT_TRUE(refused<StateError>(each, both.state_dict(),
                                  "the state has 1 param groups, this optimizer 2"));
  EXPECT_TRUE(refused<StateError>(each, swapped.state_dict(),
                                  "param group 0: expected parameter 'a', found 'b' in the state"));
  EXPECT_TRUE(
      refused<StateError>(both, only_a.state_dict(),
                          "param group 0: expected parameter 'b', found '(none)' in the state"));
  EXPECT_TRUE(
      refused<StateError>(only_a, both.state_dict(),
                          "param group 0: expected parameter '(none)', found 'b' in the state"));
}

TEST_F(Restore, refuses_state_of_a_parameter_that_no_group_has) {
  NamedOptimizer optimizer(parameters_, Adam());
  train(optimizer, parameters_, 1);
  StateDict source = optimizer.state_dict().clone();
  source["state"].as_dict()["stranger"] = source.at("state").as_dict().at("a");
  EXPECT_TRUE(refused<StateError>(optimizer, source,
                                  "the state has parameter 'stranger', which no param group has"));
}

TEST_F(Restore, refuses_what_is_no_state_of_an_optimizer) {
  NamedOptimizer optimizer(parameters_, Adam());
  train(optimizer, parameters_, 1);
  EXPECT_TRUE(refused<NameError>(optimizer, {}, "'rule'"));
  EXPECT_TRUE(refused<NameError>(optimizer, {{"rule", "Adam"}}, "'param_groups'"));
}

TEST_F(Restore, puts_back_the_hyper_parameters_of_each_group) {
  const Parameter a = parameters_[0].parameter, b = parameters_[1].parameter;
  NamedOptimizer source(parameters_, Adam(), {{.params = a, .lr = 0.3}, {.params = b, .lr = 0.4}});
  NamedOptimizer target(parameters_, Adam(), {{.params = a}, {.params = b}});
  ParamGroup& group = target.param_groups()[1];
  target.restore(source.state_dict());
  EXPECT_EQ(target.param_groups()[0].lr(), 0.3);
  EXPECT_EQ(group.lr(), 0.4);
}

TEST_F(Restore, brings_back_a_run_in_which_momentum_was_switched_on) {
  NamedOptimizer source(parameters_, SGD({.lr = 0.1}));
  train(source, parameters_, 1);
  source.param_groups()[0].set({{"momentum", 0.9}, {"dampening", 0.5}});
  EXPECT_TRUE(source.state_dict().at("state").as_dict().empty());
  NamedOptimizer target(parameters_, SGD({.lr = 0.1}));
  target.restore(source.state_dict());
  step_b(target);
  EXPECT_TRUE(
      bit_equal(state_of(target, "b").at("momentum_buffer").as_tensor(), Tensor::full({4}, 0.5)));
}

TEST(InitState, makes_zero_gradients_and_slots_and_touches_nothing_else) {
  std::vector<NamedParameter> parameters = small_parameters();
  Parameter frozen = parameters[2].parameter;
  frozen.set_requires_grad(false);
  NamedOptimizer optimizer(parameters, AdamW({.weight_decay = 0.5}));
  parameters[1].parameter.mutable_grad().fill(3);
  const StateDict before = snapshot(optimizer, parameters);
  optimizer.init_state();
  EXPECT_TRUE(bit_equal(before.at("values"), snapshot(optimizer, parameters).at("values")));
  EXPECT_TRUE(bit_equal(parameters[0].parameter.grad(), Tensor::zeros({3, 2})));
  EXPECT_TRUE(bit_equal(parameters[1].parameter.grad(), Tensor::full({4}, 3)));
  EXPECT_FALSE(frozen.has_grad());
  EXPECT_TRUE(state_of(optimizer, "c").empty());
  const StateDict state = state_of(optimizer, "d");
  EXPECT_EQ(state.at("step").as_int(), 0);
  EXPECT_TRUE(bit_equal(state.at("exp_avg").as_tensor(), Tensor::zeros({5}, DType::f64)));
  EXPECT_TRUE(bit_equal(state.at("exp_avg_sq").as_tensor(), Tensor::zeros({5}, DType::f64)));
}

TEST(InitState, does_not_change_how_adam_trains) {
  std::vector<NamedParameter> expected = small_parameters(), found = small_parameters();
  NamedOptimizer plain(expected, Adam()), initialized(found, Adam());
  initialized.init_state();
  train(plain, expected, 3);
  train(initialized, found, 3);
  EXPECT_TRUE(bit_equal(snapshot(plain, expected), snapshot(initialized, found)));
}

TEST(InitState, keeps_state_that_exists) {
  std::vector<NamedParameter> parameters = small_parameters();
  NamedOptimizer optimizer(parameters, Adam());
  train(optimizer, parameters, 2);
  const StateDict before = snapshot(optimizer, parameters);
  optimizer.init_state();
  EXPECT_TRUE(bit_equal(before, snapshot(optimizer, parameters)));
}

}  // namespace named_optimizer_restore_test
}  // namespace lockstep
