#include "lockstep/autograd/losses.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "lockstep/autograd/activations.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/gradient_check.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace losses_test {

using testing::check_gradients;
using testing::throws;
using testing::uniform;
using Inputs = std::vector<Variable>;
using Numbers = std::vector<double>;

Variable vector(const Numbers& numbers) {
  return Tensor::from(numbers, {static_cast<std::int64_t>(numbers.size())});
}

Tensor labels(const std::vector<std::int64_t>& numbers) {
  return Tensor::from(numbers, {static_cast<std::int64_t>(numbers.size())});
}

TEST(Losses, compute_what_their_names_say) {
  const Variable x = vector({1, 2, -3}), y = vector({1.5, 0, -3});
  EXPECT_DOUBLE_EQ(l1_loss(x, y).value().item(), 2.5 / 3);
  EXPECT_DOUBLE_EQ(huber_loss(x, y).value().item(), (0.125 + 1.5) / 3);
  EXPECT_DOUBLE_EQ(huber_loss(x, y, 4).value().item(), (0.125 + 2) / 3);
  const Tensor p = Tensor::from(Numbers{0.25, 0.75, 0, 1}, {2, 2});
  const Tensor log_q = Tensor::from(Numbers{std::log(0.5), std::log(0.5), -7, 0}, {2, 2});
  EXPECT_DOUBLE_EQ(kl_divergence(log_q, p).value().item(),
                   (0.25 * std::log(0.5) + 0.75 * std::log(1.5)) / 2);
  EXPECT_DOUBLE_EQ(nll_loss(log_q, labels({1, 0})).value().item(), (std::log(2.0) + 7) / 2);
  EXPECT_DOUBLE_EQ(binary_cross_entropy(vector({0, 2}), vector({1, 0.25})).value().item(),
                   (std::log(2.0) - 0.25 * std::log(1 / (1 + std::exp(-2.0))) -
                    0.75 * std::log(1 - 1 / (1 + std::exp(-2.0)))) /
                       2);
}

TEST(Losses, differentiate) {
  // No two differences are where a loss has no second derivative.
  const Tensor x = uniform({4, 3}, 1, 1, 2), y = uniform({4, 3}, 2, -2, 0.5);
  const Tensor p = uniform({4, 3}, 3, 0.1, 1);
  check_gradients([](const Inputs& in) { return l1_loss(in[0], in[1]); }, {x, y});
  check_gradients([](const Inputs& in) { return huber_loss(in[0], in[1], 0.2); }, {x, y});
  check_gradients([](const Inputs& in) { return huber_loss(in[0], in[1], 7); }, {x, y});
  check_gradients([](const Inputs& in) { return kl_divergence(log_softmax(in[0]), in[1]); },
                  {x, p});
  check_gradients([](const Inputs& in) { return nll_loss(in[0], labels({2, 0, 1, 1})); }, {x});
  check_gradients([](const Inputs& in) { return binary_cross_entropy(in[0], in[1]); }, {y, p});
}

TEST(Losses, of_a_label_are_those_of_the_two_operations) {
  const Variable x = uniform({5, 7}, 1, -3, 3);
  const Tensor label = labels({0, 6, 3, 3, 1});
  EXPECT_NEAR(cross_entropy(x, label).value().item(),
              nll_loss(log_softmax(x), label).value().item(), 1e-14);
}

TEST(Losses, of_large_logits_are_finite) {
  const Variable x = vector({800, -800}), y = vector({0, 1});
  EXPECT_EQ(binary_cross_entropy(x, y).value().item(), 800);
  const Variable logits(Tensor::from(Numbers{1e4, 0, -1e4}, {1, 3}), true);
  EXPECT_EQ(log_softmax(logits).value().span<double>()[2], -2e4);
  EXPECT_EQ(softmax(logits).value().span<double>()[0], 1);
}

// By the same formulas in long double, to within 4 units of the last place of a mean of one.
TEST(Losses, are_exact_where_terms_cancel_or_the_form_changes) {
  for (const double x : {-745.0, -30.0, -1.0, -1e-9, -0.0, 1e-9, 0.5, 1.0, 17.0, 36.0, 700.0}) {
    for (const double y : {0.0, 0.3, 1.0}) {
      const long double logit = x, wanted = y;
      const long double expected =
          std::max(logit, 0.0L) - logit * wanted + std::log1p(std::exp(-std::abs(logit)));
      EXPECT_DOUBLE_EQ(binary_cross_entropy(vector({x}), vector({y})).value().item(),
                       static_cast<double>(expected))
          << x << " " << y;
      const Variable variable(Tensor::from(Numbers{x}, {1}), true);
      binary_cross_entropy(variable, vector({y})).backward();
      EXPECT_NEAR(variable.grad().item(), static_cast<double>(1 / (1 + std::exp(-logit)) - wanted),
                  5e-16)
          << x << " " << y;
    }
    for (const double delta : {1e-9, 0.5, 1.0, 17.0}) {
      const double size = std::abs(x);
      const double expected = size <= delta ? x * x / 2 : delta * (size - delta / 2);
      EXPECT_DOUBLE_EQ(huber_loss(vector({x}), vector({0}), delta).value().item(), expected);
      const Variable variable(Tensor::from(Numbers{x}, {1}), true);
      huber_loss(variable, vector({0}), delta).backward();
      EXPECT_EQ(variable.grad().item(), std::clamp(x, -delta, delta));
    }
  }
}

TEST(Losses, of_a_nan_are_nan) {
  const Variable nan(Tensor::full({3}, std::numeric_limits<double>::quiet_NaN(), DType::f64), true);
  const Variable y = vector({1, 0, 1});
  for (const Variable& loss : {l1_loss(nan, y), huber_loss(nan, y), binary_cross_entropy(nan, y),
                               mean_squared_error(nan, y)}) {
    EXPECT_TRUE(std::isnan(loss.value().item()));
  }
  huber_loss(nan, y).backward();
  EXPECT_TRUE(std::isnan(nan.grad().span<double>()[2]));
}

TEST(Losses, of_nothing_are_zero) {
  const Variable none(Tensor::zeros({0, 3}), true);
  for (const Variable& loss :
       {l1_loss(none, none), huber_loss(none, none), kl_divergence(none, none),
        nll_loss(none, labels({})), binary_cross_entropy(none, none)}) {
    EXPECT_EQ(loss.value().item(), 0);
  }
}

TEST(Losses, refuse_what_does_not_fit) {
  const Variable a = Tensor::zeros({2, 3}), b = Tensor::zeros({3, 2});
  EXPECT_TRUE(throws<ShapeError>([&] { l1_loss(a, b); }, "l1_loss", "(2, 3)", "(3, 2)"));
  EXPECT_TRUE(throws<ShapeError>([&] { huber_loss(a, b); }, "huber_loss"));
  EXPECT_TRUE(throws<ShapeError>([&] { kl_divergence(a, b); }, "kl_divergence"));
  EXPECT_TRUE(throws<ShapeError>([&] { binary_cross_entropy(a, b); }, "binary_cross_entropy"));
  EXPECT_TRUE(throws<DTypeError>(
      [&] {
        l1_loss(a, Tensor::zeros({2, 3}, DType::f64));
      },
      "l1_loss"));
  EXPECT_TRUE(throws<ShapeError>([&] { nll_loss(a, labels({1})); }, "labels of shape (2)", "(1)"));
  EXPECT_TRUE(throws<DataError>(
      [&] {
        nll_loss(a, labels({1, 3}));
      },
      "label 3 of row 1", "[0, 3)"));
  EXPECT_TRUE(throws<DataError>([&] { nll_loss(a, labels({-1, 0})); }, "label -1 of row 0"));
  const Variable scalar = Tensor::zeros({});
  EXPECT_TRUE(throws<ShapeError>([&] { kl_divergence(scalar, scalar); }, "()"));
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double delta : {0.0, -1.0, nan}) {
    EXPECT_TRUE(throws<OptionError>([&] { huber_loss(a, a, delta); }, "delta > 0"));
  }
}

TEST(Activations, of_a_row_or_with_an_option_differentiate) {
  const Tensor x = uniform({3, 5}, 4, 0.2, 2);
  Tensor mixed = x.clone();
  for (std::size_t i = 0; i < 15; i += 2) mixed.span<double>()[i] *= -1;
  check_gradients([](const Inputs& in) { return silu(in[0]); }, {mixed});
  check_gradients([](const Inputs& in) { return softplus(in[0], 2); }, {mixed});
  check_gradients([](const Inputs& in) { return leaky_relu(in[0], 0.2); }, {mixed});
  check_gradients([](const Inputs& in) { return elu(in[0], 1.5); }, {mixed});
  check_gradients([](const Inputs& in) { return softmax(in[0]); }, {mixed});
  check_gradients([](const Inputs& in) { return log_softmax(in[0]); }, {mixed});
}

TEST(Activations, keep_nan_and_what_is_large) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Variable x = vector({nan, 900, -900});
  const auto values = [](const Variable& y) {
    return Numbers(y.value().span<double>().begin(), y.value().span<double>().end());
  };
  for (const Numbers& y :
       {values(silu(x)), values(softplus(x)), values(leaky_relu(x)), values(elu(x))}) {
    EXPECT_TRUE(std::isnan(y[0]));
    EXPECT_EQ(y[1], 900);
  }
  EXPECT_EQ(values(silu(x))[2], 0);
  EXPECT_EQ(values(softplus(x))[2], 0);
  EXPECT_EQ(values(leaky_relu(x))[2], -9);
  EXPECT_EQ(values(elu(x))[2], -1);
  EXPECT_TRUE(throws<OptionError>([&] { softplus(x, 0); }, "beta > 0", "0"));
  EXPECT_TRUE(throws<ShapeError>([] { softmax(Tensor::zeros({})); }, "softmax", "()"));
  EXPECT_TRUE(throws<ShapeError>([] { log_softmax(Tensor::zeros({})); }, "log_softmax", "()"));
  EXPECT_EQ(softmax(Tensor::zeros({3, 0})).shape(), (Shape{3, 0}));
}

}  // namespace losses_test
}  // namespace lockstep
