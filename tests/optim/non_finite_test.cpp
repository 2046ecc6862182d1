// What becomes of a step whose gradients are not finite, beside an error and a skipped step.
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/optim/clipping.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "optim/small_parameters.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace non_finite_test {

using namespace testing;
using optim::clip_gradients;
using optim::Clipping;
using optim::NonFinite;
using optim::SGD;

constexpr double infinity = std::numeric_limits<double>::infinity();
const double nan = std::nan("");

class NonFiniteTest : public ::testing::Test {
 protected:
  NonFiniteTest() { set_gradients(parameters_, 0); }

  std::vector<NamedParameter> parameters_ = small_parameters();
  Parameter a_ = parameters_[0].parameter;
  Parameter b_ = parameters_[1].parameter;
};

TEST_F(NonFiniteTest, ignored_makes_the_step_and_names_the_parameters) {
  std::vector<NamedParameter> others = small_parameters();
  NamedOptimizer optimizer(parameters_, SGD({.momentum = 0.9})),
      plain(others, SGD({.momentum = 0.9}));
  set_gradients(others, 0);
  for (const auto& parameters : {parameters_, others}) {
    Parameter(parameters[1].parameter).mutable_grad().data<float>()[2] = static_cast<float>(nan);
    Parameter(parameters[3].parameter).mutable_grad().data<double>()[0] = -infinity;
  }
  for (const Clipping& clipping : {Clipping{.non_finite = NonFinite::ignore},
                                   Clipping{.global_norm = 0.1, .non_finite = NonFinite::ignore}}) {
    optimizer.set_clipping(clipping);
    const StepReport report = optimizer.step();
    EXPECT_TRUE(report.applied);
    EXPECT_EQ(report.non_finite, (std::vector<std::string>{"b", "d"}));
    EXPECT_TRUE(std::isnan(report.gradient_norm.value()));
    plain.step();
    EXPECT_TRUE(bit_equal(snapshot(optimizer, parameters_), snapshot(plain, others)));
  }
}

TEST_F(NonFiniteTest, ignored_leaves_the_limits_that_can_be_applied) {
  a_.mutable_grad().fill(2);  // 6 numbers
  b_.mutable_grad().data<float>()[0] = static_cast<float>(nan);
  b_.mutable_grad().data<float>()[1] = static_cast<float>(-infinity);
  const Tensor before = b_.grad().clone();
  clip_gradients(parameters_, {.norm = 1, .non_finite = NonFinite::ignore});
  EXPECT_NEAR(a_.grad().data<float>()[0], 1 / std::sqrt(6), 1e-6);
  EXPECT_TRUE(bit_equal(b_.grad(), before));
  clip_gradients(parameters_, {.value = 0.25, .non_finite = NonFinite::ignore});
  EXPECT_TRUE(std::isnan(b_.grad().data<float>()[0]));
  EXPECT_EQ(b_.grad().data<float>()[1], -0.25F);
  EXPECT_EQ(a_.grad().data<float>()[0], 0.25F);
  b_.mutable_grad().fill(infinity);
  clip_gradients({{"b", b_}}, {.norm = 1, .global_norm = 1, .non_finite = NonFinite::ignore});
  EXPECT_EQ(b_.grad().data<float>()[0], infinity);
  // Nothing but an infinity, which the limit on each number makes finite.
  clip_gradients({{"b", b_}}, {.value = 1, .global_norm = 1, .non_finite = NonFinite::ignore});
  EXPECT_NEAR(b_.grad().data<float>()[0], 0.5, 1e-6);
}

TEST_F(NonFiniteTest, of_a_single_step_goes_before_that_of_the_optimizer) {
  NamedOptimizer optimizer(parameters_, SGD());
  b_.mutable_grad().fill(nan);
  const StateDict before = snapshot(optimizer, parameters_);
  const StepReport skipped = optimizer.step({.non_finite = NonFinite::skip});
  EXPECT_FALSE(skipped.applied);
  EXPECT_EQ(skipped.non_finite, std::vector<std::string>{"b"});
  EXPECT_FALSE(optimizer.step_parameter(b_, {.non_finite = NonFinite::skip}).applied);
  EXPECT_TRUE(throws<StateError>([&] { optimizer.step({.non_finite = NonFinite::error}); }, "'b'"));
  optimizer.set_clipping({.value = 1});
  EXPECT_FALSE(optimizer.step({.non_finite = NonFinite::skip}).applied);
  EXPECT_TRUE(bit_equal(before, snapshot(optimizer, parameters_)));
  const StepReport one = optimizer.step_parameter(b_, {.non_finite = NonFinite::ignore});
  EXPECT_TRUE(one.applied);
  EXPECT_EQ(one.non_finite, std::vector<std::string>{"b"});
  EXPECT_TRUE(std::isnan(b_.value().data<float>()[0]));
  EXPECT_EQ(optimizer.clipping()->non_finite, NonFinite::error);
  optimizer.remove_clipping();
  EXPECT_FALSE(optimizer.step().gradient_norm.has_value());
}

}  // namespace non_finite_test
}  // namespace lockstep
