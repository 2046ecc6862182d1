// What load_state_dict takes and refuses; restore() has a file of its own.

#include <functional>
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
namespace named_optimizer_state_test {

using namespace testing;
using optim::Adam;
using optim::SGD;

class LoadStateDict : public ::testing::Test {
 protected:
  using Edit = std::function<void(StateDict& state, StateDict& group)>;

  // That an optimizer of `rule` refuses what another one has saved, once edited, and stays as it
  // is. `state` is what was saved of parameter "a", `group` the first param group.
  template <class E>
  ::testing::AssertionResult refused(const optim::UpdateRule& rule, const Edit& edit,
                                     const std::string& message) {
    StateDict saved = saved_by(rule);
    edit(saved["state"].as_dict()["a"].as_dict(), saved["param_groups"].as_list()[0].as_dict());
    NamedOptimizer optimizer(parameters_, rule);
    train(optimizer, parameters_, 2);
    const StateDict before = snapshot(optimizer, parameters_);
    const auto result = throws<E>([&] { optimizer.load_state_dict(saved); }, message);
    EXPECT_TRUE(bit_equal(before, snapshot(optimizer, parameters_)));
    EXPECT_TRUE(throws<E>([&] { optimizer.check_restore(saved); }));
    EXPECT_TRUE(throws<E>([&] { optimizer.restore(saved); }));
    EXPECT_TRUE(bit_equal(before, snapshot(optimizer, parameters_)));
    return result;
  }

  // After five steps, with another rate: nothing of it equals what an optimizer has after two.
  static StateDict saved_by(const optim::UpdateRule& rule) {
    std::vector<NamedParameter> parameters = small_parameters();
    NamedOptimizer source(parameters, rule);
    source.param_groups()[0].set_lr(0.25);
    train(source, parameters, 5);
    return source.state_dict().clone();
  }

  static void nothing(StateDict&, StateDict&) {}

  std::vector<NamedParameter> parameters_ = small_parameters();
  const SGD momentum_{{.lr = 0.1, .momentum = 0.9}};
  const Adam adam_{{.lr = 0.1}};
};

TEST_F(LoadStateDict, takes_over_tensors_steps_and_hyper_parameters) {
  const StateDict saved = saved_by(adam_);
  NamedOptimizer optimizer(parameters_, adam_);
  train(optimizer, parameters_, 2);
  optimizer.load_state_dict(saved);
  EXPECT_TRUE(bit_equal(saved, optimizer.state_dict()));
  EXPECT_EQ(state_of(optimizer, "a").at("step").as_int(), 5);
  EXPECT_EQ(optimizer.param_groups()[0].lr(), 0.25);
}

TEST_F(LoadStateDict, copies_and_does_not_share) {
  StateDict saved = saved_by(adam_);
  NamedOptimizer optimizer(parameters_, adam_);
  optimizer.init_state();
  optimizer.load_state_dict(saved);
  const StateDict before = optimizer.state_dict().clone();
  saved["state"].as_dict()["a"].as_dict()["exp_avg"].as_tensor().fill(7);
  EXPECT_TRUE(bit_equal(before, optimizer.state_dict()));
}

TEST_F(LoadStateDict, refuses_missing_slots_and_wrong_numbers_of_them) {
  EXPECT_TRUE(refused<StateError>(
      adam_,
      [](StateDict& state, StateDict&) {
        state = {{"exp_avg", state["exp_avg"]}, {"other", state["exp_avg_sq"]}, {"step", 5}};
      },
      "Expects state exp_avg_sq for parameter a but not found."));
  EXPECT_TRUE(refused<StateError>(
      adam_,
      [](StateDict& state, StateDict&) {
        state = {{"exp_avg", state["exp_avg"]}, {"exp_avg_sq", state["exp_avg_sq"]}, {"t", 5}};
      },
      "Expects state step for parameter a but not found."));
  EXPECT_TRUE(refused<StateError>(
      adam_, [](StateDict& state, StateDict&) { state["max_exp_avg_sq"] = state["exp_avg"]; },
      "Expects equal length as 3 for parameter a but found: 4"));
  EXPECT_TRUE(refused<StateError>(
      momentum_, [](StateDict& state, StateDict&) { state = {}; },
      "Expects equal length as 1 for parameter a but found: 0"));
}

TEST_F(LoadStateDict, refuses_a_group_that_lacks_a_hyper_parameter) {
  EXPECT_TRUE(refused<StateError>(
      momentum_,
      [](StateDict&, StateDict& group) {
        StateDict without;
        for (const auto& [key, value] : group) {
          if (key != "momentum") without[key] = value;
        }
        group = without;
      },
      "Expects group key momentum to be in group "));
}

TEST_F(LoadStateDict, refuses_hyper_parameters_outside_their_range_or_of_another_type) {
  EXPECT_TRUE(refused<OptionError>(
      momentum_, [](StateDict&, StateDict& group) { group["lr"] = -0.5; },
      "SGD: expected lr >= 0, found -0.5"));
  EXPECT_TRUE(refused<StateError>(
      momentum_, [](StateDict&, StateDict& group) { group["nesterov"] = 1.5; },
      "hyper-parameter 'nesterov': expected a bool in the state dict, found a double"));
}

TEST_F(LoadStateDict, refuses_another_shape) {
  // PyTorch broadcasts it.
  EXPECT_TRUE(refused<ShapeError>(
      momentum_,
      [](StateDict& state, StateDict&) { state["momentum_buffer"] = Tensor::zeros({1}); },
      "state momentum_buffer of parameter a: expected shape (3, 2), found (1)"));
  EXPECT_TRUE(refused<ShapeError>(
      momentum_,
      [](StateDict& state, StateDict&) {
        state["momentum_buffer"] = Tensor::zeros({2, 3});
      },
      "expected shape (3, 2), found (2, 3)"));
}

TEST_F(LoadStateDict, refuses_another_dtype_or_no_tensor) {
  EXPECT_TRUE(refused<DTypeError>(
      momentum_,
      [](StateDict& state, StateDict&) {
        state["momentum_buffer"] = Tensor::zeros({3, 2}, DType::f64);
      },
      "state momentum_buffer of parameter a: expected dtype f32, found f64"));
  EXPECT_TRUE(refused<StateError>(
      momentum_, [](StateDict& state, StateDict&) { state["momentum_buffer"] = 1.0; },
      "expected a tensor in the state dict, found a double"));
  EXPECT_TRUE(refused<StateError>(
      momentum_, [](StateDict& state, StateDict&) { state["momentum_buffer"] = Tensor(); },
      "the tensor is undefined"));
}

TEST_F(LoadStateDict, refuses_a_step_that_is_negative_or_no_integer) {
  EXPECT_TRUE(refused<StateError>(
      adam_, [](StateDict& state, StateDict&) { state["step"] = -1; },
      "Expects state step of parameter a to be at least 0 but found -1"));
  EXPECT_TRUE(refused<StateError>(
      adam_, [](StateDict& state, StateDict&) { state["step"] = 2.5; },
      "expected an integer in the state dict, found a double"));
}

TEST_F(LoadStateDict, a_fault_in_the_last_parameter_spares_the_first) {
  StateDict saved = saved_by(momentum_);
  saved["state"].as_dict()["d"].as_dict()["momentum_buffer"] = Tensor::zeros({1}, DType::f64);
  NamedOptimizer optimizer(parameters_, momentum_);
  train(optimizer, parameters_, 2);
  const StateDict before = snapshot(optimizer, parameters_);
  EXPECT_TRUE(throws<ShapeError>([&] { optimizer.load_state_dict(saved); }, "parameter d"));
  EXPECT_TRUE(bit_equal(before, snapshot(optimizer, parameters_)));
}

TEST_F(LoadStateDict, refuses_what_is_no_state_of_an_optimizer) {
  NamedOptimizer optimizer(parameters_, momentum_);
  train(optimizer, parameters_, 2);
  const StateDict before = snapshot(optimizer, parameters_);
  EXPECT_TRUE(throws<NameError>([&] { optimizer.load_state_dict({}); }, "'param_groups'"));
  EXPECT_TRUE(throws<NameError>(
      [&] {
        optimizer.load_state_dict({{"param_groups", StateList()}});
      },
      "'state'"));
  EXPECT_TRUE(throws<StateError>(
      [&] {
        optimizer.load_state_dict({{"param_groups", 3}});
      },
      "expected a list"));
  EXPECT_TRUE(throws<StateError>([&] { optimizer.load_state_dict(saved_by(adam_)); },
                                 "Expects group key "));
  EXPECT_TRUE(bit_equal(before, snapshot(optimizer, parameters_)));
}

TEST_F(LoadStateDict, wants_an_initialized_optimizer) {
  for (const optim::UpdateRule* rule : {static_cast<const optim::UpdateRule*>(&adam_),
                                        static_cast<const optim::UpdateRule*>(&momentum_)}) {
    NamedOptimizer optimizer(parameters_, *rule);
    const StateDict before = snapshot(optimizer, parameters_);
    EXPECT_TRUE(throws<StateError>(
        [&] { optimizer.load_state_dict(saved_by(*rule)); },
        "Expects the optim to be initialized before load but found not initialized"));
    EXPECT_TRUE(bit_equal(before, snapshot(optimizer, parameters_)));
    optimizer.init_state();
    optimizer.load_state_dict(saved_by(*rule));
    EXPECT_TRUE(bit_equal(saved_by(*rule), optimizer.state_dict()));
  }
}

TEST_F(LoadStateDict, a_rule_without_state_loads_at_once) {
  NamedOptimizer optimizer(parameters_, SGD({.lr = 0.1}));
  optimizer.load_state_dict(saved_by(SGD({.lr = 0.1, .weight_decay = 0.5})));
  EXPECT_EQ(optimizer.param_groups()[0].lr(), 0.25);
  EXPECT_EQ(optimizer.param_groups()[0].get("weight_decay").as_double(), 0.5);
}

TEST_F(LoadStateDict, hyper_parameters_that_are_loaded_decide_which_slots_there_are) {
  NamedOptimizer optimizer(parameters_, SGD({.lr = 0.1}));
  optimizer.load_state_dict(saved_by(momentum_));
  EXPECT_TRUE(bit_equal(saved_by(momentum_), optimizer.state_dict()));
}

TEST_F(LoadStateDict, a_parameter_that_the_source_lacks_keeps_its_state) {
  std::vector<NamedParameter> some = small_parameters();
  NamedOptimizer source(some, momentum_, {{.params = {some[0].parameter, some[2].parameter}}});
  train(source, some, 5);
  NamedOptimizer optimizer(parameters_, momentum_);
  train(optimizer, parameters_, 2);
  const StateDict before = snapshot(optimizer, parameters_).at("optimizer").as_dict();
  optimizer.param_groups()[0].set_lr(0.5);
  optimizer.load_state_dict(source.state_dict());
  for (const char* name : {"a", "c"}) {
    EXPECT_TRUE(bit_equal(state_of(source, name), state_of(optimizer, name))) << name;
  }
  for (const char* name : {"b", "d"}) {
    EXPECT_TRUE(
        bit_equal(before.at("state").as_dict().at(name).as_dict(), state_of(optimizer, name)))
        << name;
  }
  // Its group is another one.
  EXPECT_EQ(optimizer.param_groups()[0].lr(), 0.5);
}

TEST_F(LoadStateDict, a_parameter_without_state_gets_that_of_the_source) {
  NamedOptimizer optimizer(parameters_, momentum_);
  parameters_[0].parameter.mutable_grad().fill(1);
  optimizer.step();
  ASSERT_TRUE(state_of(optimizer, "b").empty());
  optimizer.load_state_dict(saved_by(momentum_));
  EXPECT_TRUE(bit_equal(saved_by(momentum_), optimizer.state_dict()));
}

TEST_F(LoadStateDict, a_parameter_that_only_the_source_has_is_ignored) {
  NamedOptimizer optimizer({parameters_[0]}, momentum_);
  train(optimizer, {parameters_[0]}, 1);
  const StateDict saved = saved_by(momentum_);
  optimizer.load_state_dict(saved);
  EXPECT_TRUE(bit_equal(state_of(optimizer, "a"), saved.at("state").as_dict().at("a").as_dict()));
  EXPECT_TRUE(state_of(optimizer, "b").empty());
}

TEST_F(LoadStateDict, groups_are_found_by_their_names_whatever_the_order) {
  const auto groups_of = [](const std::vector<NamedParameter>& p, bool swapped) {
    std::vector<ParamGroupOptions> groups{
        {.params = {p[0].parameter, p[1].parameter}, .lr = swapped ? 0.3 : 0.1},
        {.params = {p[3].parameter, p[2].parameter}, .lr = swapped ? 0.4 : 0.2}};
    if (swapped) std::swap(groups[0], groups[1]);
    return groups;
  };
  std::vector<NamedParameter> others = small_parameters();
  NamedOptimizer source(others, momentum_, groups_of(others, true));
  train(source, others, 1);
  NamedOptimizer optimizer(parameters_, momentum_, groups_of(parameters_, false));
  train(optimizer, parameters_, 1);
  StateDict saved = source.state_dict();
  saved["param_groups"].as_list()[0].as_dict()["initial_lr"] = 1.0;  // as a scheduler leaves it
  optimizer.load_state_dict(saved);
  EXPECT_EQ(optimizer.param_groups()[0].lr(), 0.3);
  EXPECT_EQ(optimizer.param_groups()[1].lr(), 0.4);
}

TEST_F(LoadStateDict, of_its_own_state_changes_nothing) {
  NamedOptimizer optimizer(parameters_, adam_);
  train(optimizer, parameters_, 3);
  const StateDict before = snapshot(optimizer, parameters_);
  optimizer.load_state_dict(optimizer.state_dict());
  EXPECT_TRUE(bit_equal(before, snapshot(optimizer, parameters_)));
  optimizer.restore(optimizer.state_dict());
  EXPECT_TRUE(bit_equal(before, snapshot(optimizer, parameters_)));
}

TEST_F(LoadStateDict, training_goes_on_as_if_it_had_never_stopped) {
  std::vector<NamedParameter> others = small_parameters();
  NamedOptimizer uninterrupted(others, adam_);
  train(uninterrupted, others, 7);

  NamedOptimizer first(parameters_, adam_);
  train(first, parameters_, 3);
  NamedOptimizer second(parameters_, adam_);
  second.init_state();
  second.load_state_dict(first.state_dict());
  train(second, parameters_, 4, 3);
  EXPECT_TRUE(bit_equal(snapshot(uninterrupted, others), snapshot(second, parameters_)));
}

}  // namespace named_optimizer_state_test
}  // namespace lockstep
