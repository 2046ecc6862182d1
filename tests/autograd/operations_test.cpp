#include "lockstep/autograd/operations.hpp"
#include "lockstep/autograd/activations.hpp"
#include "lockstep/autograd/losses.hpp"
#include "lockstep/autograd/structure.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/gradient_check.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace operations_test {

using testing::check_gradients;
using testing::throws;
using testing::uniform;
using Inputs = std::vector<Variable>;

std::vector<double> values(const Variable& x) {
  const Tensor numbers = x.value().to(DType::f64);
  return {numbers.span<double>().begin(), numbers.span<double>().end()};
}

Variable vector(const std::vector<double>& numbers) {
  return Tensor::from(numbers, {static_cast<std::int64_t>(numbers.size())});
}

// Away from 0, where relu has no derivative and division none either.
Tensor away_from_zero(const Shape& shape, std::uint64_t seed) {
  Tensor tensor = uniform(shape, seed, 0.2, 2);
  std::span<double> numbers = tensor.span<double>();
  for (std::size_t i = 0; i < numbers.size(); i += 3) numbers[i] = -numbers[i];
  return tensor;
}

const Shape shape{5, 7};

TEST(Operations, of_two_operands_compute_and_differentiate) {
  const Variable a = vector({6, -3}), b = vector({2, 4});
  EXPECT_EQ(values(a + b), (std::vector<double>{8, 1}));
  EXPECT_EQ(values(a - b), (std::vector<double>{4, -7}));
  EXPECT_EQ(values(a * b), (std::vector<double>{12, -12}));
  EXPECT_EQ(values(a / b), (std::vector<double>{3, -0.75}));
  const std::vector<Tensor> inputs{away_from_zero(shape, 1), away_from_zero(shape, 2)};
  check_gradients([](const Inputs& x) { return x[0] + x[1]; }, inputs);
  check_gradients([](const Inputs& x) { return x[0] - x[1]; }, inputs);
  check_gradients([](const Inputs& x) { return x[0] * x[1]; }, inputs);
  check_gradients([](const Inputs& x) { return x[0] / x[1]; }, inputs);
}

TEST(Operations, with_a_scalar_compute_and_differentiate) {
  const Variable a = vector({6, -3});
  EXPECT_EQ(values(a + 2.0), (std::vector<double>{8, -1}));
  EXPECT_EQ(values(2.0 + a), (std::vector<double>{8, -1}));
  EXPECT_EQ(values(a - 2.0), (std::vector<double>{4, -5}));
  EXPECT_EQ(values(2.0 - a), (std::vector<double>{-4, 5}));
  EXPECT_EQ(values(a * 2.0), (std::vector<double>{12, -6}));
  EXPECT_EQ(values(2.0 * a), (std::vector<double>{12, -6}));
  EXPECT_EQ(values(a / 2.0), (std::vector<double>{3, -1.5}));
  EXPECT_EQ(values(-a), (std::vector<double>{-6, 3}));
  const std::vector<Tensor> inputs{away_from_zero(shape, 1)};
  check_gradients([](const Inputs& x) { return x[0] + 0.3; }, inputs);
  check_gradients([](const Inputs& x) { return 0.3 + x[0]; }, inputs);
  check_gradients([](const Inputs& x) { return x[0] - 0.3; }, inputs);
  check_gradients([](const Inputs& x) { return 0.3 - x[0]; }, inputs);
  check_gradients([](const Inputs& x) { return x[0] * 0.3; }, inputs);
  check_gradients([](const Inputs& x) { return 0.3 * x[0]; }, inputs);
  check_gradients([](const Inputs& x) { return x[0] / 0.3; }, inputs);
  check_gradients([](const Inputs& x) { return -x[0]; }, inputs);
}

TEST(Operations, division_by_a_scalar_is_rounded_once) {
  EXPECT_EQ(values(vector({49, 5}) / 49.0), (std::vector<double>{1, 5.0 / 49}));
}

TEST(Operations, of_one_operand_differentiate) {
  const std::vector<Tensor> inputs{away_from_zero(shape, 3)};
  check_gradients([](const Inputs& x) { return exp(x[0]); }, inputs);
  check_gradients([](const Inputs& x) { return log(x[0] * x[0]); }, inputs);
  check_gradients([](const Inputs& x) { return relu(x[0]); }, inputs);
  check_gradients([](const Inputs& x) { return tanh(x[0]); }, inputs);
  check_gradients([](const Inputs& x) { return sigmoid(x[0]); }, inputs);
  check_gradients([](const Inputs& x) { return gelu(x[0]); }, inputs);
  check_gradients([](const Inputs& x) { return sum(x[0]); }, inputs);
  check_gradients([](const Inputs& x) { return mean(x[0]); }, inputs);
  check_gradients([](const Inputs& x) { return reshape(x[0], {7, 1, 5}); }, inputs);
  check_gradients([](const Inputs& x) { return dropout(x[0], 0.4, RandomKey(3)); }, inputs);
}

TEST(Operations, compute_what_their_names_say) {
  const Variable x = vector({-1.5, 0, 2});
  EXPECT_EQ(values(relu(x)), (std::vector<double>{0, 0, 2}));
  EXPECT_NEAR(values(exp(x))[0], std::exp(-1.5), 1e-15);
  EXPECT_NEAR(values(log(x))[2], std::log(2), 1e-15);
  EXPECT_NEAR(values(tanh(x))[2], std::tanh(2), 1e-15);
  EXPECT_NEAR(values(sigmoid(x))[0], 1 / (1 + std::exp(1.5)), 1e-15);
  EXPECT_NEAR(values(gelu(x))[2], 2 * 0.97724986805182079, 1e-14);
  EXPECT_EQ(sum(x).value().item(), 0.5);
  EXPECT_EQ(sum(x).shape(), Shape{});
  EXPECT_EQ(mean(x).value().item(), 0.5 / 3);
  EXPECT_EQ(sum(Tensor::zeros({0, 3})).value().item(), 0);
  EXPECT_EQ(mean(Tensor::zeros({0, 3})).value().item(), 0);
}

TEST(Relu, has_derivative_0_at_0_and_lets_nan_through) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Variable x(Tensor::from(std::vector<double>{0, -0.0, nan}, {3}), true);
  const Variable y = relu(x);
  EXPECT_TRUE(std::isnan(values(y)[2]));
  sum(y).backward();
  EXPECT_EQ(x.grad().data<double>()[0], 0);
  EXPECT_EQ(x.grad().data<double>()[1], 0);
}

TEST(Relu, keeps_an_infinite_gradient_from_what_it_cut_off) {
  const double inf = std::numeric_limits<double>::infinity();
  const Variable x(Tensor::from(std::vector<double>{-1, 2}, {2}), true);
  sum(relu(x) * inf).backward();
  EXPECT_EQ(x.grad().data<double>()[0], 0);
  EXPECT_EQ(x.grad().data<double>()[1], inf);
}

TEST(Matmul, computes_and_differentiates) {
  const Variable a = Tensor::from(std::vector<double>{1, 2, 3, 4, 5, 6}, {2, 3});
  const Variable b = Tensor::from(std::vector<double>{1, 0, 2, 1, 0, 3}, {3, 2});
  EXPECT_EQ(values(matmul(a, b)), (std::vector<double>{5, 11, 14, 23}));
  check_gradients([](const Inputs& x) { return matmul(x[0], x[1]); },
                  {uniform({3, 5}, 1), uniform({5, 4}, 2)});
  check_gradients([](const Inputs& x) { return matmul(x[0], x[0]); }, {uniform({4, 4}, 1)});
  EXPECT_EQ(values(matmul(Tensor::zeros({2, 0}), Tensor::zeros({0, 2}))), std::vector<double>(4));
}

TEST(Matmul, refuses_what_does_not_fit) {
  const auto zeros = [](const Shape& s, DType dtype = DType::f32) {
    return Tensor::zeros(s, dtype);
  };
  EXPECT_TRUE(throws<ShapeError>(
      [&] {
        matmul(zeros({2, 3}), zeros({4, 2}));
      },
      "matmul", "(2, 3)", "(4, 2)"));
  EXPECT_TRUE(throws<ShapeError>([&] { matmul(zeros({3}), zeros({3, 2})); }, "matmul", "(3)"));
  EXPECT_TRUE(throws<ShapeError>([&] { matmul(zeros({2, 3}), zeros({3})); }, "matmul", "(3)"));
  EXPECT_THROW(matmul(zeros({2, 2}), zeros({2, 2}, DType::f64)), DTypeError);
  EXPECT_THROW(matmul(zeros({2, 2}, DType::i64), zeros({2, 2}, DType::i64)), DTypeError);
}

TEST(LinearOperation, computes_and_differentiates_for_inputs_of_any_rank) {
  const Variable weight = Tensor::from(std::vector<double>{1, 2, 3, 4, 5, 6}, {2, 3});
  const Variable bias = vector({10, 20});
  const Variable y = linear(vector({1, 0, -1}), weight, bias);
  EXPECT_EQ(y.shape(), Shape{2});
  EXPECT_EQ(values(y), (std::vector<double>{8, 18}));
  EXPECT_EQ(values(linear(vector({1, 0, -1}), weight, {})), (std::vector<double>{-2, -2}));
  for (const Shape& input : {Shape{3}, Shape{4, 3}, Shape{2, 4, 3}, Shape{2, 1, 2, 3}}) {
    const std::vector<Tensor> inputs{uniform(input, 1), uniform({5, 3}, 2), uniform({5}, 3)};
    check_gradients([](const Inputs& x) { return linear(x[0], x[1], x[2]); }, inputs);
    check_gradients([](const Inputs& x) { return linear(x[0], x[1], {}); }, {inputs[0], inputs[1]});
  }
  EXPECT_EQ(linear(Tensor::zeros({0, 3}, DType::f64), weight, bias).shape(), (Shape{0, 2}));
}

TEST(LinearOperation, of_no_rows_gives_gradients_of_zero) {
  const Variable weight(uniform({2, 3}, 1), true), bias(uniform({2}, 2), true);
  sum(linear(Tensor::zeros({0, 3}, DType::f64), weight, bias)).backward();
  EXPECT_TRUE(bit_equal(weight.grad(), Tensor::zeros({2, 3}, DType::f64)));
  EXPECT_TRUE(bit_equal(bias.grad(), Tensor::zeros({2}, DType::f64)));
}

TEST(LinearOperation, refuses_what_does_not_fit) {
  const auto zeros = [](const Shape& s, DType dtype = DType::f32) {
    return Variable(Tensor::zeros(s, dtype));
  };
  const Variable x = zeros({4, 3}), weight = zeros({2, 3});
  EXPECT_TRUE(throws<ShapeError>(
      [&] {
        linear(zeros({4, 2}), weight, {});
      },
      "linear", "(..., 3)", "(4, 2)"));
  EXPECT_TRUE(throws<ShapeError>([&] { linear(zeros({}), weight, {}); }, "linear", "()"));
  EXPECT_TRUE(throws<ShapeError>([&] { linear(x, zeros({3}), {}); }, "weight", "(3)"));
  EXPECT_TRUE(
      throws<ShapeError>([&] { linear(x, weight, zeros({3})); }, "bias of shape (2)", "(3)"));
  EXPECT_TRUE(throws<ShapeError>([&] { linear(x, weight, zeros({1, 2})); }, "(1, 2)"));
  EXPECT_THROW(linear(zeros({4, 3}, DType::f64), weight, {}), DTypeError);
  EXPECT_THROW(linear(x, weight, zeros({2}, DType::f64)), DTypeError);
  EXPECT_THROW(linear({}, weight, {}), StateError);
  EXPECT_THROW(linear(x, {}, {}), StateError);
}

TEST(Operations, refuse_operands_that_differ) {
  const Variable a = Tensor::zeros({2, 3}), b = Tensor::zeros({3}),
                 c = Tensor::zeros({2, 3}, DType::f64);
  EXPECT_TRUE(throws<ShapeError>([&] { a + b; }, "addition", "(2, 3)", "(3)"));
  EXPECT_TRUE(throws<ShapeError>([&] { a - b; }, "subtraction"));
  EXPECT_TRUE(throws<ShapeError>([&] { a* Tensor::zeros({}); }, "multiplication", "()"));
  EXPECT_TRUE(throws<ShapeError>([&] { a / b; }, "division"));
  EXPECT_TRUE(throws<ShapeError>([&] { mean_squared_error(a, b); }, "(2, 3)", "(3)"));
  EXPECT_TRUE(throws<DTypeError>([&] { a + c; }, "addition", "f32", "f64"));
  EXPECT_THROW(a - c, DTypeError);
  EXPECT_THROW(a * c, DTypeError);
  EXPECT_THROW(a / c, DTypeError);
  EXPECT_THROW(mean_squared_error(a, c), DTypeError);
  EXPECT_TRUE(throws<ShapeError>([&] { reshape(a, {5}); }, "(2, 3)", "(5)"));
  EXPECT_THROW(a + Variable(), StateError);
}

TEST(Operations, take_floating_tensors_only) {
  const Variable x = Tensor::zeros({2}, DType::i64);
  EXPECT_TRUE(throws<DTypeError>([&] { x + x; }, "i64"));
  for (const auto function : {exp, log, relu, tanh, sigmoid, gelu, sum, mean}) {
    EXPECT_THROW(function(x), DTypeError);
  }
  EXPECT_THROW(x * 2.0, DTypeError);
  EXPECT_THROW(dropout(x, 0.5, RandomKey(1)), DTypeError);
  EXPECT_EQ(reshape(x, {2, 1}).dtype(), DType::i64);
}

TEST(Dropout, zeroes_the_drawn_elements_and_scales_the_others) {
  const Variable x = Tensor::full({100, 100}, 3, DType::f64);
  const Variable y = dropout(x, 0.25, RandomKey(5));
  std::int64_t dropped = 0;
  for (std::int64_t i = 0; i < y.size(); ++i) {
    const bool drop = RandomKey(5).uniform(static_cast<std::uint64_t>(i)) < 0.25;
    EXPECT_EQ(y.value().data<double>()[i], drop ? 0.0 : 4.0);
    dropped += drop;
  }
  EXPECT_NEAR(static_cast<double>(dropped), 2500, 5 * std::sqrt(10'000 * 0.25 * 0.75));
  EXPECT_TRUE(bit_equal(y.value(), dropout(x, 0.25, RandomKey(5)).value()));
  EXPECT_FALSE(bit_equal(y.value(), dropout(x, 0.25, RandomKey(6)).value()));
  EXPECT_TRUE(bit_equal(x.value(), dropout(x, 0, RandomKey(5)).value()));
}

TEST(Dropout, refuses_a_probability_outside_its_range) {
  const Variable x = Tensor::zeros({2});
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double p : {1.0, -0.1, 2.0, nan})
    EXPECT_THROW(dropout(x, p, RandomKey(1)), OptionError);
}

TEST(MeanSquaredError, computes_and_differentiates_by_both) {
  EXPECT_EQ(mean_squared_error(vector({1, 2}), vector({3, 5})).value().item(), 6.5);
  check_gradients([](const Inputs& x) { return mean_squared_error(x[0], x[1]); },
                  {uniform(shape, 1), uniform(shape, 2)});
  EXPECT_EQ(mean_squared_error(Tensor::zeros({0, 2}), Tensor::zeros({0, 2})).value().item(), 0);
}

TEST(CrossEntropy, computes_and_differentiates) {
  const Tensor label = Tensor::full({1}, 2, DType::i64);
  const Variable uniform_logits = Tensor::zeros({1, 4}, DType::f64);
  EXPECT_NEAR(cross_entropy(uniform_logits, label).value().item(), std::log(4), 1e-15);
  const Tensor labels = Tensor::from(std::vector<std::int64_t>{0, 6, 3, 3, 1}, {5});
  check_gradients([&](const Inputs& x) { return cross_entropy(x[0], labels); },
                  {uniform(shape, 1, -3, 3)});
}

TEST(CrossEntropy, of_no_rows_is_0_with_gradients_of_no_rows) {
  const Variable logits(Tensor::zeros({0, 4}), true);
  const Variable loss = cross_entropy(logits, Tensor::zeros({0}, DType::i64));
  EXPECT_EQ(loss.value().item(), 0);
  loss.backward();
  EXPECT_EQ(logits.grad().shape(), (Shape{0, 4}));
}

TEST(CrossEntropy, refuses_what_does_not_fit) {
  const Variable logits = Tensor::zeros({2, 3});
  const auto labels = [](std::vector<std::int64_t> numbers) {
    return Tensor::from(numbers, {static_cast<std::int64_t>(numbers.size())});
  };
  EXPECT_TRUE(throws<DataError>(
      [&] {
        cross_entropy(logits, labels({0, 3}));
      },
      "label 3 of row 1", "[0, 3)"));
  EXPECT_TRUE(throws<DataError>(
      [&] {
        cross_entropy(logits, labels({-1, 0}));
      },
      "label -1 of row 0"));
  EXPECT_TRUE(throws<ShapeError>([&] { cross_entropy(logits, labels({0})); }, "(2)", "(1)"));
  EXPECT_TRUE(
      throws<ShapeError>([&] { cross_entropy(Tensor::zeros({3}), labels({0})); }, "logits", "(3)"));
  EXPECT_TRUE(throws<DTypeError>([&] { cross_entropy(logits, Tensor::zeros({2})); }, "f32", "i64"));
  EXPECT_THROW(cross_entropy(Tensor::zeros({2, 3}, DType::i64), labels({0, 1})), DTypeError);
  EXPECT_THROW(cross_entropy(Tensor::zeros({1, 0}), labels({0})), DataError);
}

}  // namespace operations_test
}  // namespace lockstep
