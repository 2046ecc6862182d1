#include "lockstep/optim/loss_scale.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "lockstep/autograd/operations.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/combined_optimizer.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "optim/small_parameters.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace loss_scale_test {

using namespace testing;
using optim::Adam;
using optim::LossScale;
using optim::NonFinite;
using optim::SGD;

const double nan = std::nan("");
constexpr double infinity = std::numeric_limits<double>::infinity();

class LossScaleTest : public ::testing::Test {
 protected:
  // A step of training; with a gradient that is not finite where it is to overflow.
  StepReport train(LossScale& scale, bool overflows) {
    set_gradients(parameters_, step_++);
    if (overflows) Parameter(parameters_[2].parameter).mutable_grad().fill(infinity);
    const StepReport report = scale.step(optimizer_);
    scale.update();
    return report;
  }

  std::vector<NamedParameter> parameters_ = small_parameters();
  NamedOptimizer optimizer_{parameters_, Adam()};
  std::uint64_t step_ = 0;
};

TEST_F(LossScaleTest, multiplies_the_loss_and_divides_the_gradients) {
  const LossScale scale({.initial = 1024});
  EXPECT_EQ(scale.value(), 1024);
  EXPECT_EQ(scale.scale(Tensor::full({1}, 3)).value().item(), 3072);
  std::vector<NamedParameter> others = small_parameters();
  NamedOptimizer plain(others, Adam());
  LossScale by_1024 = scale;
  for (std::uint64_t step = 0; step < 3; ++step) {
    set_gradients(parameters_, step);
    set_gradients(others, step);
    for (const auto& [name, parameter] : parameters_) {
      Tensor& gradient = Parameter(parameter).mutable_grad();
      gradient.copy_from((Variable(gradient.clone()) * 1024.0).value());
    }
    by_1024.step(optimizer_);
    plain.step();
  }
  EXPECT_TRUE(bit_equal(snapshot(optimizer_, parameters_), snapshot(plain, others)));
}

// The rule that torch documents for torch.cuda.amp.GradScaler: the scale is multiplied by
// backoff_factor at each update() where infs or NaNs were found, and by growth_factor where there were
// none in growth_interval consecutive iterations.
TEST_F(LossScaleTest, follows_the_documented_rule_of_torch) {
  for (const std::int64_t interval : {1, 2, 3, 7}) {
    LossScale scale({.initial = 4096, .growth = 4, .backoff = 0.25, .growth_interval = interval});
    double expected = 4096;
    std::int64_t consecutive = 0;
    const RandomKey key(static_cast<std::uint64_t>(interval));
    for (std::uint64_t step = 0; step < 60; ++step) {
      const bool overflows = key.bits(step) % 5 < 2;
      EXPECT_EQ(train(scale, overflows).applied, !overflows);
      consecutive = overflows ? 0 : consecutive + 1;
      if (overflows) expected *= 0.25;
      if (consecutive == interval) {
        expected *= 4;
        consecutive = 0;
      }
      expected = std::min(std::max(expected, 0x1p-14), 0x1p24);
      ASSERT_EQ(scale.value(), expected) << interval << ", " << step;
    }
  }
}

TEST_F(LossScaleTest, stays_in_its_range) {
  LossScale scale({.initial = 4, .growth_interval = 1, .min = 1, .max = 10});
  for (const double expected : {8.0, 10.0, 10.0}) {
    train(scale, false);
    EXPECT_EQ(scale.value(), expected);
  }
  for (const double expected : {5.0, 2.5, 1.25, 1.0, 1.0}) {
    train(scale, true);
    EXPECT_EQ(scale.value(), expected);
  }
}

TEST_F(LossScaleTest, stays_as_it_is_on_request_and_still_skips) {
  LossScale scale({.initial = 128, .growth_interval = 0});
  for (int step = 0; step < 5; ++step) EXPECT_TRUE(train(scale, false).applied);
  const StateDict before = snapshot(optimizer_, parameters_);
  EXPECT_FALSE(train(scale, true).applied);
  EXPECT_TRUE(bit_equal(before, snapshot(optimizer_, parameters_)));
  EXPECT_EQ(scale.value(), 128);
}

TEST_F(LossScaleTest, skips_whatever_the_optimizer_does_by_itself) {
  LossScale scale;
  for (const NonFinite policy : {NonFinite::error, NonFinite::skip, NonFinite::ignore}) {
    optimizer_.set_clipping({.global_norm = 1, .non_finite = policy});
    const StateDict before = snapshot(optimizer_, parameters_);
    const StepReport report = train(scale, true);
    EXPECT_FALSE(report.applied);
    EXPECT_EQ(report.non_finite, std::vector<std::string>{"c"});
    EXPECT_TRUE(bit_equal(before, snapshot(optimizer_, parameters_)));
    EXPECT_EQ(optimizer_.clipping()->non_finite, policy);
  }
  EXPECT_EQ(scale.value(), 8192);
}

TEST_F(LossScaleTest, limits_the_norm_of_the_gradients_as_they_are_without_it) {
  Parameter p(Tensor::full({4}, 1)), q(Tensor::full({4}, 1));
  p.mutable_grad().fill(3 * 1024);
  q.mutable_grad().fill(3);
  NamedOptimizer scaled({{"p", p}}, SGD({.lr = 0.1})), plain({{"q", q}}, SGD({.lr = 0.1}));
  scaled.set_clipping({.global_norm = 2});
  plain.set_clipping({.global_norm = 2});
  LossScale scale({.initial = 1024});
  EXPECT_EQ(scale.step(scaled).gradient_norm.value(), 6);
  plain.step();
  EXPECT_TRUE(bit_equal(p.value(), q.value()));
  EXPECT_NEAR(p.value().data<float>()[0], 1 - 0.1, 1e-6);  // the clipped norm of 2 is 4 times 1
}

TEST_F(LossScaleTest, backs_off_once_where_any_of_several_optimizers_skips) {
  Parameter p(Tensor::full({2}, 1)), q(Tensor::full({2}, 1));
  NamedOptimizer first({{"p", p}}, SGD({.lr = 1})), second({{"q", q}}, SGD({.lr = 1}));
  LossScale scale({.initial = 64, .growth_interval = 1});
  for (const bool first_overflows : {true, false}) {
    p.mutable_grad().fill(first_overflows ? nan : 64);
    q.mutable_grad().fill(first_overflows ? 64 : nan);
    EXPECT_EQ(scale.step(first).applied, !first_overflows);
    EXPECT_EQ(scale.step(second).applied, first_overflows);
    scale.update();
    EXPECT_EQ(scale.value(), first_overflows ? 32 : 16);
  }
  EXPECT_EQ(q.value().data<float>()[0], 0);
  EXPECT_EQ(p.value().data<float>()[0], -1);
  q.mutable_grad().fill(1);
  CombinedOptimizer both({{"first", first}, {"second", second}});
  EXPECT_TRUE(scale.step(both).applied);
  q.mutable_grad().fill(nan);
  EXPECT_EQ(scale.step(both).non_finite, std::vector<std::string>{"second.q"});
}

TEST_F(LossScaleTest, wants_a_step_before_an_update) {
  LossScale scale;
  EXPECT_TRUE(throws<StateError>([&] { scale.update(); }, "no optimizer has made a step"));
  train(scale, false);
  EXPECT_TRUE(throws<StateError>([&] { scale.update(); }, "no optimizer has made a step"));
}

TEST_F(LossScaleTest, goes_on_from_a_state_as_if_nothing_had_happened) {
  const optim::LossScaleOptions options{.initial = 512, .growth_interval = 5};
  LossScale whole(options), resumed(options);
  for (int step = 0; step < 4; ++step) train(whole, step == 0);
  resumed.restore(whole.state_dict());
  for (int step = 0; step < 9; ++step) {
    EXPECT_TRUE(bit_equal(whole.state_dict(), resumed.state_dict())) << step;
    EXPECT_EQ(whole.value(), step < 2 ? 256 : step < 7 ? 512 : 1024);
    train(whole, false);
    train(resumed, false);
  }
}

TEST_F(LossScaleTest, refuses_a_state_that_does_not_fit_and_keeps_its_own) {
  LossScale scale({.initial = 8, .min = 1, .max = 16});
  const auto refused = [&](const StateDict& source, const char* message) {
    EXPECT_THROW(scale.restore(source), Error);
    EXPECT_EQ(scale.value(), 8);
    return throws<StateError>([&] { scale.check_restore(source); }, message);
  };
  EXPECT_TRUE(refused({{"scale", 32.0}, {"steps", 0}}, "expected a scale of 1 to 16, found 32"));
  EXPECT_TRUE(refused({{"scale", 0.5}, {"steps", 0}}, "found 0.5"));
  EXPECT_TRUE(refused({{"scale", nan}, {"steps", 0}}, "found nan"));
  EXPECT_TRUE(refused({{"scale", 4.0}, {"steps", -1}}, "expected steps >= 0, found -1"));
  EXPECT_TRUE(refused({{"scale", 4}, {"steps", 0}}, "a double"));
  EXPECT_TRUE(throws<NameError>([&] { scale.restore({{"scale", 4.0}}); }, "steps"));
}

TEST_F(LossScaleTest, refuses_each_option_outside_its_range_by_name) {
  const auto refused = [](const optim::LossScaleOptions& options, const char* message) {
    return throws<OptionError>([&] { LossScale scale(options); }, message);
  };
  for (const double bad : {0.0, -1.0, nan}) {
    EXPECT_TRUE(refused({.initial = bad}, "loss scale: expected initial between min and max"));
    EXPECT_TRUE(refused({.growth = bad}, "loss scale: expected growth >= 1"));
    EXPECT_TRUE(refused({.backoff = bad}, "loss scale: expected 0 < backoff < 1"));
    EXPECT_TRUE(refused({.min = bad}, "loss scale: expected min > 0"));
    EXPECT_TRUE(refused({.max = bad}, "loss scale: expected max >= min"));
  }
  EXPECT_TRUE(refused({.backoff = 1}, "expected 0 < backoff < 1, found 1"));
  EXPECT_TRUE(refused({.growth = infinity}, "growth"));
  EXPECT_TRUE(refused({.max = infinity}, "max"));
  EXPECT_TRUE(refused({.initial = 0x1p25}, "initial"));
  EXPECT_TRUE(refused({.growth_interval = -1}, "expected growth_interval >= 0, found -1"));
}

}  // namespace loss_scale_test
}  // namespace lockstep
