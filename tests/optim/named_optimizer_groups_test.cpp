#include <cmath>
#include <string>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/core/log.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "optim/small_parameters.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace named_optimizer_groups_test {

using namespace testing;
using optim::Adam;
using optim::SGD;

class ParamGroupsTest : public ::testing::Test {
 protected:
  Parameter a() const { return parameters_[0].parameter; }
  Parameter b() const { return parameters_[1].parameter; }
  Parameter c() const { return parameters_[2].parameter; }

  // An optimizer of "a", after one step.
  NamedOptimizer of_a() {
    NamedOptimizer optimizer(parameters_, SGD({.lr = 0.1, .momentum = 0.9}), {{.params = a()}});
    train(optimizer, parameters_, 1);
    return optimizer;
  }

  // That add_param_group refuses `options` by this message, after which everything must be as
  // before, and the next group be welcome.
  template <class E>
  ::testing::AssertionResult refused_group(const ParamGroupOptions& options,
                                           const std::string& message) {
    NamedOptimizer optimizer = of_a();
    const StateDict before = snapshot(optimizer, parameters_);
    const auto result = throws<E>([&] { optimizer.add_param_group(options); }, message);
    EXPECT_TRUE(bit_equal(before, snapshot(optimizer, parameters_)));
    EXPECT_EQ(optimizer.param_groups().size(), 1U);
    optimizer.add_param_group({.params = {b(), c()}});
    return result;
  }

  template <class E>
  ::testing::AssertionResult refused_fields(const StateDict& fields, const std::string& message) {
    NamedOptimizer optimizer = of_a();
    const StateDict before = snapshot(optimizer, parameters_);
    const auto result = throws<E>([&] { optimizer.param_groups()[0].set(fields); }, message);
    EXPECT_TRUE(bit_equal(before, snapshot(optimizer, parameters_)));
    return result;
  }

  std::vector<NamedParameter> parameters_ = small_parameters();
};

TEST_F(ParamGroupsTest, construction_refuses_a_name_that_comes_twice) {
  const std::vector<NamedParameter> twice{{"same", a()}, {"same", b()}};
  EXPECT_TRUE(
      throws<NameError>([&] { NamedOptimizer(twice, SGD()); }, "two parameters are called 'same'"));
}

TEST_F(ParamGroupsTest, construction_refuses_an_undefined_parameter) {
  const std::vector<NamedParameter> undefined{{"first", a()}, {"hole", Parameter()}};
  EXPECT_TRUE(throws<StateError>([&] { NamedOptimizer(undefined, SGD()); },
                                 "parameter 'hole' is undefined"));
}

TEST_F(ParamGroupsTest, construction_refuses_no_parameters) {
  EXPECT_TRUE(
      throws<OptionError>([] { NamedOptimizer({}, SGD()); }, "the optimizer got no parameters"));
}

TEST_F(ParamGroupsTest, construction_refuses_groups_that_are_empty_or_overlap) {
  EXPECT_TRUE(throws<OptionError>(
      [&] {
        NamedOptimizer(parameters_, SGD(), {{.params = a()}, {.params = {}}});
      },
      "the param group has no parameters"));
  EXPECT_TRUE(throws<NameError>(
      [&] {
        NamedOptimizer(parameters_, SGD(), {{.params = a()}, {.params = {b(), a()}}});
      },
      "parameter 'a' appears in more than one param group"));
}

TEST_F(ParamGroupsTest, a_refused_group_changes_nothing) {
  EXPECT_TRUE(refused_group<OptionError>({.params = {}}, "the param group has no parameters"));
  EXPECT_TRUE(
      refused_group<NameError>({.params = {b(), Parameter(Tensor::zeros({8, 1}))}},
                               "some parameters are not in the module: one of shape (8, 1)"));
  EXPECT_TRUE(
      refused_group<NameError>({.params = {b(), Parameter()}},
                               "some parameters are not in the module: one of shape undefined"));
  EXPECT_TRUE(refused_group<NameError>({.params = {b(), a()}},
                                       "parameter 'a' appears in more than one param group"));
  EXPECT_TRUE(refused_group<NameError>({.params = {b(), c(), b()}},
                                       "parameter 'b' appears twice in a param group"));
  EXPECT_TRUE(
      refused_group<OptionError>({.params = b(), .lr = -1}, "SGD: expected lr >= 0, found -1"));
  EXPECT_TRUE(refused_group<OptionError>({.params = b(), .lr = std::nan("")},
                                         "SGD: expected lr >= 0, found nan"));
  EXPECT_TRUE(refused_group<OptionError>({.params = b(), .lr = HUGE_VAL},
                                         "SGD: expected lr >= 0, found inf"));
  EXPECT_TRUE(refused_group<NameError>(
      {.params = b(), .fields = {{"beta1", 0.5}}},
      "SGD has no hyper-parameter 'beta1'; it has lr, momentum, dampening, weight_decay, "
      "nesterov, maximize"));
  EXPECT_TRUE(refused_group<StateError>(
      {.params = b(), .fields = {{"momentum", "much"}}},
      "hyper-parameter 'momentum': expected a double in the state dict, found a string"));
  EXPECT_TRUE(refused_group<StateError>(
      {.params = b(), .fields = {{"nesterov", 1.0}}},
      "hyper-parameter 'nesterov': expected a bool in the state dict, found a double"));
}

TEST_F(ParamGroupsTest, refused_hyper_parameters_change_nothing) {
  // The first field by name is good, and must be put back when the second is refused.
  EXPECT_TRUE(refused_fields<OptionError>({{"dampening", 0.5}, {"lr", -1.0}},
                                          "SGD: expected lr >= 0, found -1"));
  EXPECT_TRUE(refused_fields<NameError>(
      {{"dampening", 0.5}, {"rate", 1.0}},
      "SGD has no hyper-parameter 'rate'; it has lr, momentum, dampening, weight_decay, "
      "nesterov, maximize"));
  EXPECT_TRUE(refused_fields<StateError>(
      {{"dampening", 0.5}, {"lr", true}},
      "hyper-parameter 'lr': expected a double in the state dict, found a bool"));
  EXPECT_TRUE(refused_fields<OptionError>({{"dampening", 0.5}, {"nesterov", true}},
                                          "SGD: expected dampening = 0 with nesterov, found 0.5"));
  NamedOptimizer optimizer = of_a();
  EXPECT_THROW(optimizer.param_groups()[0].get("rate"), NameError);
}

TEST_F(ParamGroupsTest, an_integer_is_taken_for_a_floating_point_field) {
  NamedOptimizer optimizer = of_a();
  optimizer.param_groups()[0].set({{"lr", 2}});
  EXPECT_EQ(optimizer.param_groups()[0].lr(), 2.0);
}

TEST_F(ParamGroupsTest, inherit_what_they_do_not_override) {
  NamedOptimizer optimizer(parameters_, SGD({.lr = 0.1, .momentum = 0.9, .weight_decay = 0.01}),
                           {{.params = a()},
                            {.params = b(), .lr = 0.5},
                            {.params = c(), .fields = {{"momentum", 0.3}, {"lr", 0.2}}}});
  // A change of a group is not one of the defaults.
  optimizer.param_groups()[0].set({{"weight_decay", 0.7}});
  optimizer.add_param_group({.params = parameters_[3].parameter, .lr = 0.6});

  const auto expect_group = [&](std::size_t index, double lr, double momentum, double decay) {
    const ParamGroup& group = optimizer.param_groups()[index];
    EXPECT_EQ(group.lr(), lr) << index;
    EXPECT_EQ(group.get("momentum").as_double(), momentum) << index;
    EXPECT_EQ(group.get("weight_decay").as_double(), decay) << index;
    EXPECT_FALSE(group.get("nesterov").as_bool()) << index;
  };
  expect_group(0, 0.1, 0.9, 0.7);
  expect_group(1, 0.5, 0.9, 0.01);
  expect_group(2, 0.2, 0.3, 0.01);
  expect_group(3, 0.6, 0.9, 0.01);
}

TEST_F(ParamGroupsTest, names_are_sorted_and_parameters_in_the_order_given) {
  NamedOptimizer optimizer(parameters_, SGD(), {{.params = {c(), a(), b()}}});
  const ParamGroup& group = optimizer.param_groups()[0];
  EXPECT_EQ(group.names(), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(group.parameters()[0].name, "c");
  const StateDict saved = group.state_dict();
  EXPECT_EQ(saved.size(), 8U);
  EXPECT_EQ(saved.at("params").as_list()[0].as_string(), "a");
}

TEST_F(ParamGroupsTest, are_live) {
  NamedOptimizer optimizer = of_a();
  ParamGroup& group = optimizer.param_groups()[0];
  for (int i = 0; i < 3; ++i) {
    const Parameter added = parameters_[static_cast<std::size_t>(i) + 1].parameter;
    optimizer.add_param_group({.params = added});
  }
  EXPECT_EQ(&group, &optimizer.param_groups()[0]);

  group.set_lr(0);
  const Tensor before = a().value().clone(), before_b = b().value().clone();
  train(optimizer, parameters_, 1, 1);
  EXPECT_TRUE(bit_equal(before, a().value()));
  EXPECT_FALSE(bit_equal(before_b, b().value()));

  NamedOptimizer source = of_a();
  source.add_param_group({.params = b()});
  source.add_param_group({.params = c()});
  source.add_param_group({.params = parameters_[3].parameter});
  optimizer.load_state_dict(source.state_dict());
  EXPECT_EQ(group.lr(), 0.1);
  group.set_lr(0);
  const Tensor after_load = a().value().clone();
  train(optimizer, parameters_, 1, 2);
  EXPECT_TRUE(bit_equal(after_load, a().value()));
}

TEST_F(ParamGroupsTest, stay_what_they_are_when_the_optimizer_moves) {
  NamedOptimizer original = of_a();
  ParamGroup* group = &original.param_groups()[0];
  NamedOptimizer moved = std::move(original);
  EXPECT_EQ(group, &moved.param_groups()[0]);
  group->set_lr(0);
  const Tensor before = a().value().clone();
  train(moved, parameters_, 1, 1);
  EXPECT_TRUE(bit_equal(before, a().value()));
}

TEST_F(ParamGroupsTest, warn_of_parameters_in_no_group) {
  std::vector<std::string> notices;
  set_log_callback([&](LogLevel level, std::string_view message) {
    EXPECT_EQ(level, LogLevel::warning);
    notices.emplace_back(message);
  });
  NamedOptimizer all(parameters_, SGD());
  EXPECT_TRUE(notices.empty());
  NamedOptimizer some(parameters_, SGD(), {{.params = {a(), c()}}});
  ASSERT_EQ(notices.size(), 1U);
  EXPECT_EQ(notices[0], "the param groups have 2 of the 4 parameters; the others stay as they are");
  set_log_callback({});

  const Tensor before = b().value().clone();
  train(some, parameters_, 2);
  EXPECT_TRUE(bit_equal(before, b().value()));
}

TEST_F(ParamGroupsTest, zero_grad_forgets_gradients_or_zeroes_those_that_exist) {
  NamedOptimizer optimizer(parameters_, Adam());
  a().mutable_grad().fill(3);
  optimizer.zero_grad(false);
  EXPECT_TRUE(bit_equal(a().grad(), Tensor::zeros({3, 2})));
  EXPECT_FALSE(b().has_grad());
  optimizer.zero_grad();
  EXPECT_FALSE(a().has_grad());
}

}  // namespace named_optimizer_groups_test
}  // namespace lockstep
