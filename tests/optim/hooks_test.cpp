// Closures, and hooks around a step.

#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "lockstep/autograd/operations.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "optim/small_parameters.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace hooks_test {

using namespace testing;
using optim::NonFinite;
using optim::SGD;

class Hooks : public ::testing::Test {
 protected:
  auto before(char letter) {
    return [this, letter](KeyedOptimizer&) { calls_ += letter; };
  }
  auto after(char letter) {
    return [this, letter](KeyedOptimizer&, const StepReport&) { calls_ += letter; };
  }
  std::string step() {
    calls_.clear();
    optimizer_.step();
    return calls_;
  }

  std::string calls_;
  std::vector<NamedParameter> parameters_ = small_parameters();
  NamedOptimizer optimizer_{parameters_, SGD({.lr = 0.5})};
};

TEST_F(Hooks, run_before_and_after_the_step_in_the_order_of_registration) {
  Parameter a = parameters_[0].parameter;
  a.mutable_value().fill(1);
  a.mutable_grad().fill(1);
  const auto value = [a] { return a.value().data<float>()[0]; };
  optimizer_.after_step(after('y'));
  optimizer_.before_step([&](KeyedOptimizer& optimizer) {
    EXPECT_EQ(&optimizer, &optimizer_);
    EXPECT_EQ(value(), 1);
    calls_ += 'a';
  });
  optimizer_.after_step([&](KeyedOptimizer& optimizer, const StepReport& report) {
    EXPECT_EQ(&optimizer, &optimizer_);
    EXPECT_EQ(value(), 0.5);
    EXPECT_TRUE(report.applied);
    EXPECT_FALSE(report.gradient_norm.has_value());
    calls_ += 'z';
  });
  optimizer_.before_step(before('b'));
  EXPECT_EQ(step(), "abyz");
}

TEST_F(Hooks, before_a_step_may_change_what_it_uses) {
  Parameter a = parameters_[0].parameter;
  a.mutable_value().fill(1);
  optimizer_.before_step([&](KeyedOptimizer& optimizer) {
    a.mutable_grad().fill(1);
    optimizer.param_groups()[0].set_lr(0.25);
  });
  optimizer_.step();
  EXPECT_EQ(a.value().data<float>()[0], 0.75);
}

TEST_F(Hooks, are_removed_by_their_number) {
  const std::int64_t a = optimizer_.before_step(before('a'));
  const std::int64_t b = optimizer_.before_step(before('b'));
  const std::int64_t y = optimizer_.after_step(after('y'));
  optimizer_.after_step(after('z'));
  EXPECT_NE(a, y);
  optimizer_.remove_hook(a);
  EXPECT_EQ(step(), "byz");
  optimizer_.remove_hook(y);
  optimizer_.remove_hook(y);
  optimizer_.remove_hook(1000);
  EXPECT_EQ(step(), "bz");
  optimizer_.remove_hook(b);
  EXPECT_EQ(step(), "z");
}

TEST_F(Hooks, that_remove_themselves_leave_the_next_its_turn) {
  std::int64_t a = 0, x = 0;
  a = optimizer_.before_step([&](KeyedOptimizer& optimizer) {
    calls_ += 'a';
    optimizer.remove_hook(a);
  });
  optimizer_.before_step(before('b'));
  x = optimizer_.after_step([&](KeyedOptimizer& optimizer, const StepReport&) {
    calls_ += 'x';
    optimizer.remove_hook(x);
  });
  optimizer_.after_step(after('y'));
  EXPECT_EQ(step(), "abxy");
  EXPECT_EQ(step(), "by");
}

TEST_F(Hooks, that_are_removed_by_an_earlier_one_are_not_called) {
  std::int64_t b = 0;
  optimizer_.before_step([&](KeyedOptimizer& optimizer) {
    calls_ += 'a';
    optimizer.remove_hook(b);
  });
  b = optimizer_.before_step(before('b'));
  optimizer_.before_step(before('c'));
  EXPECT_EQ(step(), "ac");
}

TEST_F(Hooks, that_are_added_by_another_come_from_the_next_step_on) {
  optimizer_.before_step([&](KeyedOptimizer& optimizer) {
    calls_ += 'a';
    if (calls_.size() == 1) optimizer.before_step(before('b'));
  });
  optimizer_.after_step(
      [&](KeyedOptimizer& optimizer, const StepReport&) { optimizer.after_step(after('y')); });
  EXPECT_EQ(step(), "a");
  EXPECT_EQ(step(), "aby");
}

TEST_F(Hooks, before_a_step_that_throw_leave_everything_as_it_was) {
  set_gradients(parameters_, 0);
  const StateDict before_step = snapshot(optimizer_, parameters_);
  const std::int64_t bad =
      optimizer_.before_step([](KeyedOptimizer&) { throw DataError("not today"); });
  optimizer_.before_step(before('b'));
  optimizer_.after_step(after('z'));
  EXPECT_TRUE(throws<DataError>([&] { step(); }, "not today"));
  EXPECT_EQ(calls_, "");
  EXPECT_TRUE(bit_equal(before_step, snapshot(optimizer_, parameters_)));
  optimizer_.remove_hook(bad);
  EXPECT_EQ(step(), "bz");
}

TEST_F(Hooks, after_a_step_are_left_out_where_it_was_skipped) {
  optimizer_.set_clipping({.global_norm = 1, .non_finite = NonFinite::skip});
  optimizer_.before_step(before('a'));
  optimizer_.after_step(after('z'));
  set_gradients(parameters_, 0);
  Parameter(parameters_[1].parameter).mutable_grad().fill(std::nan(""));
  EXPECT_EQ(step(), "a");
  set_gradients(parameters_, 1);
  EXPECT_EQ(step(), "az");
}

TEST_F(Hooks, after_a_step_are_told_the_norm_before_clipping) {
  optimizer_.set_clipping({.global_norm = 0.5});
  optimizer_.after_step([&](KeyedOptimizer&, const StepReport& report) {
    EXPECT_DOUBLE_EQ(report.gradient_norm.value(), 4);
    calls_ += 'z';
  });
  Parameter(parameters_[1].parameter).mutable_grad().fill(2);
  EXPECT_EQ(step(), "z");
}

TEST_F(Hooks, are_not_called_by_a_step_of_one_parameter) {
  optimizer_.before_step(before('a'));
  optimizer_.after_step(after('z'));
  set_gradients(parameters_, 0);
  const Tensor value = parameters_[0].parameter.value().clone();
  optimizer_.step_parameter(parameters_[0].parameter);
  EXPECT_EQ(calls_, "");
  EXPECT_FALSE(bit_equal(value, parameters_[0].parameter.value()));
}

TEST_F(Hooks, go_with_an_optimizer_that_moves) {
  KeyedOptimizer* called = nullptr;
  optimizer_.before_step([&](KeyedOptimizer& optimizer) { called = &optimizer; });
  NamedOptimizer moved = std::move(optimizer_);
  moved.step();
  EXPECT_EQ(called, &moved);
}

TEST_F(Hooks, and_closures_that_are_empty_are_refused) {
  EXPECT_TRUE(throws<OptionError>([&] { optimizer_.before_step(KeyedOptimizer::BeforeStep()); }));
  EXPECT_TRUE(throws<OptionError>([&] { optimizer_.after_step(KeyedOptimizer::AfterStep()); }));
  EXPECT_TRUE(throws<OptionError>([&] { optimizer_.step(KeyedOptimizer::Closure()); }));
  EXPECT_EQ(step(), "");
}

TEST_F(Hooks, come_after_the_closure_whose_loss_is_returned) {
  const Parameter p(Tensor::full({2}, 3));
  NamedOptimizer optimizer({{"p", p}}, SGD({.lr = 0.5}));
  optimizer.before_step(before('a'));
  optimizer.after_step(after('z'));
  const double loss = optimizer.step([&] {
    calls_ += 'c';
    optimizer.zero_grad();
    const Variable value = sum(p * p);
    value.backward();
    return value.value().item();
  });
  EXPECT_EQ(loss, 18);
  EXPECT_EQ(calls_, "caz");
  EXPECT_EQ(p.value().data<float>()[0], 0);  // 3 - 0.5 · 2 · 3
}

TEST_F(Hooks, run_in_a_step_by_empty_braces_which_are_no_closure) {
  optimizer_.before_step(before('a'));
  EXPECT_TRUE(optimizer_.step({}).applied);
  EXPECT_EQ(calls_, "a");
}

TEST_F(Hooks, of_a_closure_that_throws_do_not_run) {
  set_gradients(parameters_, 0);
  const StateDict before_step = snapshot(optimizer_, parameters_);
  optimizer_.before_step(before('a'));
  EXPECT_TRUE(
      throws<DataError>([&] { optimizer_.step([]() -> double { throw DataError("no batch"); }); }));
  EXPECT_EQ(calls_, "");
  EXPECT_TRUE(bit_equal(before_step, snapshot(optimizer_, parameters_)));
}

TEST_F(Hooks, and_gradient_scales_that_are_not_numbers_leave_everything_as_it_was) {
  set_gradients(parameters_, 0);
  optimizer_.before_step(before('a'));
  const StateDict before_step = snapshot(optimizer_, parameters_);
  for (const double bad : {0.0, std::nan(""), HUGE_VAL, -HUGE_VAL}) {
    EXPECT_TRUE(throws<OptionError>([&] { optimizer_.step({.gradient_scale = bad}); },
                                    "gradient_scale that is finite and not zero"));
  }
  EXPECT_EQ(calls_, "");
  EXPECT_TRUE(bit_equal(before_step, snapshot(optimizer_, parameters_)));
}

}  // namespace hooks_test
}  // namespace lockstep
