#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "optim/default_rules.hpp"
#include "optim/small_parameters.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace update_rule_semantics_test {

using namespace testing;

using Numbers = std::vector<double>;

// One parameter in double precision under one rule.
class Trained {
 public:
  Trained(const std::string& rule, const StateDict& options, const Numbers& start)
      : parameter_("x", Tensor::from(start, {static_cast<std::int64_t>(start.size())})),
        optimizer_({parameter_}, *make_rule(rule, options)) {}

  void step(const Numbers& gradient) {
    std::copy(gradient.begin(), gradient.end(), parameter_.mutable_grad().data<double>());
    optimizer_.step();
  }
  void steps(int count, const Numbers& gradient) {
    for (int i = 0; i < count; ++i) step(gradient);
  }

  Numbers value() const { return numbers(parameter_.value()); }
  Numbers slot(const std::string& name) const {
    return numbers(state_of(optimizer_, "x").at(name).as_tensor());
  }
  double scalar(const std::string& name) const {
    return state_of(optimizer_, "x").at(name).as_double();
  }

 private:
  static Numbers numbers(const Tensor& tensor) {
    const auto span = tensor.span<double>();
    return {span.begin(), span.end()};
  }

  Parameter parameter_;
  NamedOptimizer optimizer_;
};

double length(const Numbers& x) {
  return std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0));
}

Numbers difference(const Numbers& a, const Numbers& b) {
  Numbers result(a.size());
  std::transform(a.begin(), a.end(), b.begin(), result.begin(), std::minus<>());
  return result;
}

Numbers scaled(double factor, Numbers x) {
  for (double& number : x) number *= factor;
  return x;
}

void expect_near(const Numbers& found, const Numbers& expected, double tolerance) {
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], tolerance) << i;
}

// The gradient of x²/2 is x, so that each step multiplies x by 1 - lr: 3/4, whose powers are exact.
TEST(SGDSteps, shrink_a_quadratic_by_the_same_factor) {
  Trained trained("SGD", {{"lr", 0.25}}, {1, -1});
  double expected = 1;
  for (int t = 0; t < 30; ++t) {
    trained.step(trained.value());
    expected *= 0.75;
    EXPECT_EQ(trained.value(), (Numbers{expected, -expected}));
  }
}

// Momentum 1/2 under a gradient of 1 is 2 - 2^(1 - t) after t steps, the first undampened. With
// dampening 1/2 it is 1 always.
TEST(SGDSteps, sum_up_momentum_as_a_geometric_series) {
  Trained plain("SGD", {{"lr", 0.5}, {"momentum", 0.5}}, {0});
  Trained damped("SGD", {{"lr", 0.5}, {"momentum", 0.5}, {"dampening", 0.5}}, {0});
  Trained ahead("SGD", {{"lr", 0.5}, {"momentum", 0.5}, {"nesterov", true}}, {0});
  double plain_sum = 0, ahead_sum = 0;
  for (int t = 1; t <= 20; ++t) {
    const double momentum = 2 - std::ldexp(1, 1 - t);
    plain_sum += momentum;
    ahead_sum += 1 + momentum / 2;
    for (Trained* trained : {&plain, &damped, &ahead}) trained->step({1});
    EXPECT_EQ(plain.slot("momentum_buffer"), Numbers{momentum});
    EXPECT_EQ(plain.value(), Numbers{-plain_sum / 2});
    EXPECT_EQ(damped.value(), Numbers{-t / 2.0});
    EXPECT_EQ(ahead.value(), Numbers{-ahead_sum / 2});
  }
}

TEST(AdamLikeSteps, begin_with_lr_in_the_direction_of_the_sign) {
  const Numbers gradient{3, -0.5, 1e-3, 0};
  for (const char* rule : {"Adam", "AdamW", "Adamax", "LAMB"}) {
    SCOPED_TRACE(rule);
    StateDict options{{"lr", 0.1}, {"eps", 1e-6}, {"weight_decay", 0.0}};
    if (rule == std::string("LAMB")) options["adapt"] = false;
    Trained trained(rule, options, {0, 0, 0, 0});
    trained.step(gradient);
    Numbers expected;
    for (const double g : gradient) expected.push_back(-0.1 * g / (std::abs(g) + 1e-6));
    expect_near(trained.value(), expected, 1e-15);
  }
}

TEST(AdamSteps, keep_the_largest_second_moment_with_amsgrad) {
  Trained trained("Adam", {{"amsgrad", true}, {"beta2", 0.5}}, {0});
  double largest = 0;
  for (const double gradient : {1.0, 4.0, 0.5, 0.25, 2.0}) {
    trained.step({gradient});
    largest = std::max(largest, trained.slot("exp_avg_sq")[0]);
    EXPECT_EQ(trained.slot("max_exp_avg_sq"), Numbers{largest});
  }
  EXPECT_GT(largest, trained.slot("exp_avg_sq")[0]);
}

// Without a gradient, only the decay remains: a factor 1 - lr · weight_decay = 3/4.
TEST(DecoupledWeightDecay, shrinks_values_without_a_gradient) {
  for (const char* rule : {"AdamW", "Lion"}) {
    Trained trained(rule, {{"lr", 0.5}, {"weight_decay", 0.5}}, {1, -2});
    trained.steps(20, {0, 0});
    const double factor = std::pow(3.0, 20) * std::ldexp(1, -40);
    EXPECT_EQ(trained.value(), (Numbers{factor, -2 * factor})) << rule;
  }
}

// Under a gradient of 1, m̂ = v̂ = 1.
TEST(RAdamSteps, are_those_of_momentum_until_the_variance_is_known) {
  Trained trained("RAdam", {{"lr", 0.1}, {"eps", 1e-300}}, {0});
  double expected = 0;
  for (int t = 1; t <= 30; ++t) {
    trained.step({1});
    const double longest = 2 / (1 - 0.999) - 1, power = std::pow(0.999, t);
    const double rho = longest - 2 * t * power / (1 - power);
    EXPECT_EQ(rho > 5, t > 5);
    expected -= 0.1 * (t <= 5 ? 1
                              : std::sqrt((rho - 4) * (rho - 2) * longest /
                                          ((longest - 4) * (longest - 2) * rho)));
    EXPECT_NEAR(trained.value()[0], expected, 1e-12) << t;
  }
}

// Without momentum decay, every momentum factor is beta1 / 2.
TEST(NAdamSteps, multiply_up_their_momentum_factors) {
  Trained trained("NAdam", {{"lr", 0.5}, {"beta1", 0.5}, {"momentum_decay", 0.0}}, {0});
  trained.steps(9, {1});
  EXPECT_EQ(trained.scalar("mu_product"), std::ldexp(1, -18));

  Trained decaying("NAdam", {{"beta1", 0.8}, {"momentum_decay", 0.2}}, {0});
  double product = 1;
  for (int t = 1; t <= 9; ++t) {
    decaying.step({1});
    product *= 0.8 * (1 - 0.5 * std::pow(0.96, 0.2 * t));
    EXPECT_NEAR(decaying.scalar("mu_product"), product, 1e-15);
  }
}

TEST(AdagradSteps, fall_as_the_inverse_root_of_their_number) {
  Trained trained("Adagrad", {{"lr", 0.1}, {"eps", 1e-300}}, {0, 0});
  Trained begun("Adagrad", {{"lr", 0.1}, {"eps", 1e-300}, {"initial_accumulator_value", 16.0}},
                {0});
  double expected = 0, later = 0;
  for (int t = 1; t <= 25; ++t) {
    trained.step({2, -7});
    begun.step({2});
    expected += 0.1 / std::sqrt(t);
    later += 0.1 / std::sqrt(t + 4);
    expect_near(trained.value(), {-expected, expected}, 1e-14);
    expect_near(begun.value(), {-later}, 1e-14);
  }
  EXPECT_EQ(begun.slot("sum"), Numbers{116});
}

TEST(AdagradGroups, have_initial_sums_of_their_own) {
  const std::vector<NamedParameter> parameters = small_parameters();
  NamedOptimizer optimizer(
      parameters, *make_rule("Adagrad", {{"initial_accumulator_value", 2.0}}),
      {{.params = "a"}, {.params = "c", .fields = {{"initial_accumulator_value", 5.0}}}});
  optimizer.init_state();
  EXPECT_EQ(state_of(optimizer, "a").at("sum").as_tensor().data<float>()[3], 2);
  EXPECT_EQ(state_of(optimizer, "c").at("sum").as_tensor().data<float>()[0], 5);
}

TEST(AdadeltaSteps, begin_with_the_root_of_eps) {
  Trained trained("Adadelta", {{"rho", 0.75}, {"eps", 1e-4}}, {0});
  trained.step({2});
  const double delta = 2 * std::sqrt(1e-4 / (1 + 1e-4));
  EXPECT_NEAR(trained.value()[0], -delta, 1e-16);
  EXPECT_NEAR(trained.slot("acc_delta")[0], delta * delta / 4, 1e-18);
}

TEST(RMSpropSteps, divide_by_the_average_of_squares) {
  Trained trained("RMSprop", {{"lr", 0.1}, {"alpha", 0.5}, {"eps", 1e-300}}, {0, 0});
  double expected = 0;
  for (int t = 1; t <= 20; ++t) {
    trained.step({4, -4});
    const double square_avg = 16 * (1 - std::ldexp(1, -t));
    expected += 0.1 * 4 / std::sqrt(square_avg);
    EXPECT_EQ(trained.slot("square_avg"), (Numbers{square_avg, square_avg}));
    expect_near(trained.value(), {-expected, expected}, 1e-14);
  }
}

// Centered, the variance of a gradient that never changes goes to zero, and rounding may take what
// is left below.
TEST(RMSpropSteps, stay_finite_where_the_gradient_has_no_variance) {
  Numbers gradient(64);
  std::iota(gradient.begin(), gradient.end(), 1);
  gradient = scaled(0.03, gradient);
  Trained trained("RMSprop", {{"alpha", 0.9}, {"eps", 1e-3}, {"centered", true}}, gradient);
  trained.steps(500, gradient);
  for (const double number : trained.value()) EXPECT_TRUE(std::isfinite(number));
}

TEST(RpropSteps, grow_and_shrink_within_their_limits) {
  const double min = 0.001, max = 0.1;
  const StateDict options{{"lr", 0.01}, {"step_min", min}, {"step_max", max}};
  Trained steady("Rprop", options, {0}), restless("Rprop", options, {0});
  double size = 0.01, expected = 0;
  for (int t = 1; t <= 40; ++t) {
    if (t > 1) size = std::min(size * 1.2, max);
    expected -= size;
    steady.step({3});
    EXPECT_NEAR(steady.slot("step_size")[0], size, 1e-15);
    EXPECT_NEAR(steady.value()[0], expected, 1e-13);

    restless.step({t % 3 == 0 ? -1.0 : 1.0});
    EXPECT_GE(restless.slot("step_size")[0], min);
    EXPECT_LE(restless.slot("step_size")[0], max);
  }
  EXPECT_EQ(steady.slot("step_size")[0], max);
}

TEST(RpropSteps, do_not_move_when_the_sign_changes) {
  Trained trained("Rprop", {{"lr", 0.25}}, {0});
  trained.step({5});
  EXPECT_EQ(trained.value(), Numbers{-0.25});
  trained.step({-2});
  EXPECT_EQ(trained.value(), Numbers{-0.25});
  EXPECT_EQ(trained.slot("step_size"), Numbers{0.125});
  EXPECT_EQ(trained.slot("prev"), Numbers{0});
  trained.step({-2});
  EXPECT_EQ(trained.value(), Numbers{-0.125});
  EXPECT_EQ(trained.slot("step_size"), Numbers{0.125});
}

// From step t0 + 2 on, whose share is still 1.
TEST(ASGDAverage, is_the_mean_of_the_values_after_t0) {
  Trained trained("ASGD", {{"lr", 0.1}, {"t0", 5.0}}, {1, -2});
  Numbers sum{0, 0};
  for (int t = 1; t <= 20; ++t) {
    trained.step({std::sin(t), std::cos(t)});
    if (t < 7) {
      EXPECT_EQ(trained.slot("ax"), trained.value());
      continue;
    }
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += trained.value()[i];
    expect_near(trained.slot("ax"), scaled(1.0 / (t - 6), sum), 1e-14);
  }
}

TEST(LionSteps, have_the_length_lr_in_each_number) {
  Trained trained("Lion", {{"lr", 0.25}}, {0, 0, 0});
  Numbers before = trained.value();
  for (int t = 1; t <= 10; ++t) {
    trained.step({std::sin(3 * t), 1e-9 * std::cos(t), 0});
    for (std::size_t i = 0; i < 2; ++i) {
      EXPECT_EQ(std::abs(trained.value()[i] - before[i]), 0.25) << t;
    }
    EXPECT_EQ(trained.value()[2], 0);
    before = trained.value();
  }
}

class LayerWiseSteps : public ::testing::TestWithParam<const char*> {
 protected:
  const std::string rule_ = GetParam();
  const Numbers start_{0.3, -0.4, 1.2};
  const Numbers gradient_{2, -1, 0.5};
};

TEST_P(LayerWiseSteps, do_not_depend_on_the_length_of_the_gradient) {
  const StateDict options{{"eps", 1e-300}};
  Trained one(rule_, options, start_), exact(rule_, options, start_), other(rule_, options, start_);
  for (int t = 0; t < 10; ++t) {
    const Numbers gradient = scaled(std::cos(t), gradient_);
    one.step(gradient);
    exact.step(scaled(1024, gradient));
    other.step(scaled(1e-5, gradient));
    EXPECT_EQ(exact.value(), one.value());
    expect_near(other.value(), one.value(), 1e-14);
  }
}

TEST_P(LayerWiseSteps, begin_with_a_share_of_the_length_of_the_parameter) {
  const double share = rule_ == "LARS" ? 0.1 * 1e-3 : 0.1;
  for (const std::size_t size : {1U, 3U, 1024U, 2500U}) {
    Numbers start(size), gradient(size);
    for (std::size_t i = 0; i < size; ++i) {
      start[i] = std::sin(static_cast<double>(i + 1));
      gradient[i] = std::cos(static_cast<double>(3 * i));
    }
    Trained trained(rule_, {{"lr", 0.1}, {"eps", 1e-300}}, start);
    trained.step(gradient);
    const double expected = share * length(start);
    EXPECT_NEAR(length(difference(trained.value(), start)), expected, 1e-12 * expected) << size;
  }
}

TEST_P(LayerWiseSteps, are_ordinary_ones_where_a_length_is_zero_or_adapt_is_off) {
  const Numbers zero{0, 0, 0};
  for (const Numbers& start : {zero, start_}) {
    Trained adapting(rule_, {{"weight_decay", 0.1}}, start);
    Trained ordinary(rule_, {{"weight_decay", 0.1}, {"adapt", false}}, start);
    const Numbers& gradient = start == zero ? gradient_ : zero;
    adapting.step(gradient);
    ordinary.step(gradient);
    if (rule_ == "LAMB" && start != zero) {
      // With weight decay the direction is not zero even so.
      EXPECT_NE(adapting.value(), ordinary.value());
    } else {
      EXPECT_EQ(adapting.value(), ordinary.value());
    }
  }
  Trained ordinary(rule_, {{"lr", 0.1}, {"eps", 1e-8}, {"adapt", false}}, start_);
  Trained plain(rule_ == "LARS" ? "SGD" : "Adam", {{"lr", 0.1}}, start_);
  ordinary.step(gradient_);
  plain.step(gradient_);
  expect_near(ordinary.value(), plain.value(), 1e-15);
}

INSTANTIATE_TEST_SUITE_P(Rules, LayerWiseSteps, ::testing::Values("LARS", "LAMB"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace update_rule_semantics_test
}  // namespace lockstep
