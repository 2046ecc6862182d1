// Defects that PyTorch's _NamedOptimizer has, each with a test that this one does not.

#include <algorithm>
#include <cstdint>
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
namespace peer_defects_test {

using namespace testing;
using optim::Adam;
using optim::AdamW;
using optim::SGD;

class PeerDefects : public ::testing::Test {
 protected:
  static StateDict saved_by(const optim::UpdateRule& rule) {
    const std::vector<NamedParameter> parameters = small_parameters();
    NamedOptimizer source(parameters, rule);
    source.param_groups()[0].set_lr(0.25);
    train(source, parameters, 5);
    return source.state_dict().clone();
  }

  std::vector<NamedParameter> parameters_ = small_parameters();
  Parameter a_ = parameters_[0].parameter;
  Parameter b_ = parameters_[1].parameter;
  const SGD momentum_{{.lr = 0.1, .momentum = 0.9}};
};

TEST_F(PeerDefects, zero_grad_reaches_the_parameters) {
  NamedOptimizer optimizer(parameters_, momentum_);
  set_gradients(parameters_, 0);
  optimizer.zero_grad(false);
  for (const auto& [name, parameter] : parameters_) {
    EXPECT_TRUE(bit_equal(parameter.grad(), Tensor::zeros(parameter.shape(), parameter.dtype())))
        << name;
  }
  optimizer.zero_grad();
  for (const auto& [name, parameter] : parameters_) EXPECT_FALSE(parameter.has_grad()) << name;
}

TEST_F(PeerDefects, param_groups_are_live_after_a_load) {
  NamedOptimizer optimizer(parameters_, momentum_);
  ParamGroup& group = optimizer.param_groups()[0];
  optimizer.init_state();
  optimizer.load_state_dict(saved_by(momentum_));
  EXPECT_EQ(&group, &optimizer.param_groups()[0]);
  EXPECT_EQ(group.lr(), 0.25);
  group.set_lr(0);
  const StateDict before = snapshot(optimizer, parameters_);
  train(optimizer, parameters_, 1);
  EXPECT_TRUE(bit_equal(before.at("values"), snapshot(optimizer, parameters_).at("values")));
}

TEST_F(PeerDefects, a_parameter_without_state_takes_over_the_state_loaded_for_it) {
  NamedOptimizer optimizer(parameters_, momentum_);
  b_.mutable_grad().fill(1);
  optimizer.step();
  ASSERT_TRUE(state_of(optimizer, "a").empty());
  const StateDict saved = saved_by(momentum_);
  const StateDict& loaded = saved.at("state").as_dict().at("a").as_dict();
  optimizer.load_state_dict(saved);
  EXPECT_TRUE(bit_equal(state_of(optimizer, "a"), loaded));
  // Its next step goes on from there, not from a first gradient.
  a_.mutable_grad().fill(0);
  optimizer.step();
  EXPECT_FLOAT_EQ(state_of(optimizer, "a").at("momentum_buffer").as_tensor().data<float>()[0],
                  0.9F * loaded.at("momentum_buffer").as_tensor().data<float>()[0]);
}

TEST_F(PeerDefects, a_slot_of_one_number_is_not_broadcast) {
  for (const Shape& wrong : {Shape{1}, Shape{1, 1}, Shape{3, 1}, Shape{1, 2}, Shape{6}, Shape{}}) {
    StateDict saved = saved_by(momentum_);
    saved["state"].as_dict()["a"].as_dict()["momentum_buffer"] = Tensor::full(wrong, 1);
    NamedOptimizer optimizer(parameters_, momentum_);
    train(optimizer, parameters_, 1);
    const StateDict before = snapshot(optimizer, parameters_);
    EXPECT_TRUE(throws<ShapeError>([&] { optimizer.load_state_dict(saved); },
                                   "momentum_buffer of parameter a: expected shape (3, 2)"));
    EXPECT_TRUE(throws<ShapeError>([&] { optimizer.restore(saved); }, "parameter a"));
    EXPECT_TRUE(bit_equal(before, snapshot(optimizer, parameters_)));
  }
}

TEST_F(PeerDefects, a_refused_group_leaves_no_name_behind) {
  NamedOptimizer optimizer(parameters_, momentum_, {{.params = a_}});
  const StateDict before = snapshot(optimizer, parameters_);
  const Parameter stranger(Tensor::zeros({4}));
  EXPECT_TRUE(throws<NameError>(
      [&] {
        optimizer.add_param_group({.params = {b_, stranger}});
      },
      "some parameters are not in the module"));
  EXPECT_THROW(optimizer.add_param_group({.params = b_, .lr = -1, .name = "x"}), OptionError);
  EXPECT_TRUE(bit_equal(before, snapshot(optimizer, parameters_)));
  EXPECT_FALSE(optimizer.contains(b_));
  optimizer.add_param_group({.params = b_, .name = "x"});
  EXPECT_TRUE(optimizer.contains(b_));
}

TEST_F(PeerDefects, a_load_that_fails_at_the_last_parameter_or_group_applies_nothing) {
  const std::vector<ParamGroupOptions> groups{{.params = {"a", "b"}}, {.params = {"c", "d"}}};
  std::vector<NamedParameter> theirs = small_parameters();
  NamedOptimizer source(theirs, Adam({.lr = 0.5}), groups);
  train(source, theirs, 3);
  NamedOptimizer optimizer(parameters_, Adam(), groups);
  train(optimizer, parameters_, 1);
  const StateDict before = snapshot(optimizer, parameters_);

  StateDict last_slot = source.state_dict().clone();
  last_slot["state"].as_dict()["d"].as_dict()["exp_avg_sq"] = Tensor::zeros({4}, DType::f64);
  EXPECT_THROW(optimizer.load_state_dict(last_slot), ShapeError);
  StateDict last_step = source.state_dict().clone();
  last_step["state"].as_dict()["d"].as_dict()["step"] = -1;
  EXPECT_THROW(optimizer.load_state_dict(last_step), StateError);
  StateDict last_group = source.state_dict().clone();
  last_group["param_groups"].as_list()[1].as_dict()["eps"] = 0.0;
  EXPECT_THROW(optimizer.load_state_dict(last_group), OptionError);
  EXPECT_TRUE(bit_equal(before, snapshot(optimizer, parameters_)));
}

template <class Rule>
void expect_init_state_moves_nothing(const Rule& rule) {
  std::vector<NamedParameter> parameters = small_parameters(), untouched = small_parameters();
  NamedOptimizer optimizer(parameters, rule), plain(untouched, rule);
  optimizer.init_state();
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    EXPECT_TRUE(bit_equal(parameters[i].parameter.value(), untouched[i].parameter.value()));
  }
  const StateDict state = state_of(optimizer, "a");
  EXPECT_TRUE(!rule.counts_steps() || state.at("step").as_int() == 0);
  train(optimizer, parameters, 3);
  train(plain, untouched, 3);
  EXPECT_TRUE(bit_equal(snapshot(optimizer, parameters), snapshot(plain, untouched)));
}

TEST_F(PeerDefects, init_state_neither_moves_parameters_nor_counts_as_a_step) {
  expect_init_state_moves_nothing(AdamW({.lr = 0.1, .weight_decay = 0.5}));
  expect_init_state_moves_nothing(Adam({.lr = 0.1, .weight_decay = 0.5, .amsgrad = true}));
  expect_init_state_moves_nothing(SGD({.lr = 0.1, .momentum = 0.9, .weight_decay = 0.5}));
}

TEST_F(PeerDefects, an_optimizer_without_state_loads) {
  NamedOptimizer optimizer(parameters_, SGD({.lr = 0.1}));
  optimizer.load_state_dict(saved_by(SGD({.lr = 0.1})));
  EXPECT_EQ(optimizer.param_groups()[0].lr(), 0.25);
}

TEST_F(PeerDefects, what_a_scheduler_adds_to_a_group_does_not_hinder_a_load) {
  StateDict saved = saved_by(momentum_);
  saved["param_groups"].as_list()[0].as_dict()["initial_lr"] = 0.5;
  NamedOptimizer optimizer(parameters_, momentum_);
  optimizer.init_state();
  optimizer.load_state_dict(saved);
  EXPECT_EQ(optimizer.param_groups()[0].lr(), 0.25);
}

TEST_F(PeerDefects, tied_parameters_go_by_their_first_name_and_load_under_each) {
  const std::vector<NamedParameter> tied{{"first", a_}, {"second", a_}, {"third", b_}};
  NamedOptimizer optimizer(tied, momentum_);
  EXPECT_EQ(optimizer.param_groups()[0].names(), (std::vector<std::string>{"first", "third"}));
  optimizer.init_state();
  for (const char* name : {"first", "second"}) {
    const std::vector<NamedParameter> theirs{{name, Parameter(drawn(7, {3, 2}))},
                                             {"third", Parameter(drawn(8, {4}))}};
    NamedOptimizer source(theirs, momentum_);
    train(source, theirs, 2);
    optimizer.load_state_dict(source.state_dict(), {.strict = true});
    EXPECT_TRUE(bit_equal(state_of(optimizer, "first"), state_of(source, name)));
  }
}

TEST_F(PeerDefects, state_does_not_depend_on_the_order_of_registration) {
  std::vector<NamedParameter> reversed = small_parameters();
  NamedOptimizer forth(parameters_, Adam());
  train(forth, parameters_, 2);
  const std::vector<NamedParameter> in_order = reversed;
  std::reverse(reversed.begin(), reversed.end());
  NamedOptimizer back(reversed, Adam());
  train(back, in_order, 2);
  EXPECT_TRUE(bit_equal(snapshot(forth, parameters_), snapshot(back, in_order)));
}

TEST_F(PeerDefects, saving_does_not_alter_training) {
  std::vector<NamedParameter> others = small_parameters();
  NamedOptimizer saved(parameters_, Adam()), plain(others, Adam());
  for (std::uint64_t step = 0; step < 4; ++step) {
    EXPECT_EQ(saved.state_dict().size(), 3U);
    train(saved, parameters_, 1, step);
    const StateDict kept = saved.state_dict().clone();
    train(plain, others, 1, step);
  }
  EXPECT_TRUE(bit_equal(snapshot(saved, parameters_), snapshot(plain, others)));
}

TEST_F(PeerDefects, a_saved_state_is_a_view_and_its_clone_a_copy) {
  NamedOptimizer optimizer(parameters_, momentum_);
  train(optimizer, parameters_, 1);
  const StateDict view = optimizer.state_dict(), copy = optimizer.state_dict().clone();
  train(optimizer, parameters_, 1, 1);
  EXPECT_TRUE(bit_equal(view.at("state"), optimizer.state_dict().at("state")));
  EXPECT_FALSE(bit_equal(copy.at("state"), optimizer.state_dict().at("state")));
}

TEST_F(PeerDefects, frozen_parameters_keep_their_state) {
  NamedOptimizer optimizer(parameters_, Adam());
  train(optimizer, parameters_, 2);
  a_.set_requires_grad(false);
  const StateDict before = StateValue(state_of(optimizer, "a")).clone().as_dict();
  const Tensor value = a_.value().clone();
  train(optimizer, parameters_, 3, 2);
  EXPECT_TRUE(bit_equal(before, state_of(optimizer, "a")));
  EXPECT_TRUE(bit_equal(value, a_.value()));
  optimizer.load_state_dict(optimizer.state_dict().clone(), {.strict = true});
  a_.set_requires_grad(true);
  train(optimizer, parameters_, 1, 5);
  EXPECT_EQ(state_of(optimizer, "a").at("step").as_int(), 3);
  EXPECT_EQ(state_of(optimizer, "b").at("step").as_int(), 6);
}

}  // namespace peer_defects_test
}  // namespace lockstep
