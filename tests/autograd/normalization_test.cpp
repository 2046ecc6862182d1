#include "lockstep/autograd/normalization.hpp"

#include <cmath>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/gradient_check.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace normalization_test {

using testing::check_gradients;
using testing::throws;
using testing::uniform;
using Inputs = std::vector<Variable>;

TEST(Normalization, differentiates_with_and_without_weight_and_bias) {
  const Tensor x = uniform({3, 4, 5}, 1), w = uniform({4, 5}, 2), b = uniform({4, 5}, 3);
  check_gradients([](const Inputs& in) { return layer_norm(in[0], {5}); }, {x});
  check_gradients(
      [](const Inputs& in) {
        return layer_norm(in[0], {4, 5}, in[1], in[2]);
      },
      {x, w, b});
  check_gradients([](const Inputs& in) { return layer_norm(in[0], {4, 5}, in[1]); }, {x, w});
  check_gradients([](const Inputs& in) { return layer_norm(in[0], {4, 5}, {}, in[1]); }, {x, b});
  const Tensor images = uniform({2, 6, 3, 2}, 4), scale = uniform({6}, 5), shift = uniform({6}, 6);
  for (const std::int64_t groups : {1, 2, 3}) {
    check_gradients([groups](const Inputs& in) { return group_norm(in[0], groups, in[1], in[2]); },
                    {images, scale, shift});
    check_gradients([groups](const Inputs& in) { return group_norm(in[0], groups); }, {images});
  }
  check_gradients([](const Inputs& in) { return group_norm(in[0], 2, in[1], in[2]); },
                  {uniform({5, 6}, 7, -3, 3), scale, shift});
}

TEST(Normalization, gives_gradients_of_parameters_alone) {
  const Variable x = uniform({3, 4}, 1);
  const Variable weight(uniform({4}, 2), true), bias(uniform({4}, 3), true);
  sum(layer_norm(x, {4}, weight, bias)).backward();
  EXPECT_EQ(bias.grad().span<double>()[0], 3);
  EXPECT_TRUE(weight.has_grad());
  EXPECT_FALSE(x.has_grad());
}

// Numbers far from zero, of which f32 keeps few digits of the distances.
TEST(Normalization, of_a_large_mean_is_exact) {
  Tensor x = uniform({2, 64}, 1, 0, 1, DType::f32);
  for (float& number : x.span<float>()) number += 10000;
  const Tensor found = layer_norm(x, {64}).value().to(DType::f64);
  const Tensor expected = layer_norm(x.to(DType::f64), {64}).value();
  testing::expect_near(found, expected, 1e-6, "f32 against f64");
}

TEST(Normalization, of_a_sample_does_not_depend_on_the_others) {
  const Tensor x = uniform({5, 6, 7}, 1, -1, 1, DType::f32);
  const Variable all = group_norm(x, 3);
  for (std::int64_t i = 0; i < 5; ++i) {
    EXPECT_TRUE(bit_equal(all.value().rows(i, i + 1), group_norm(x.rows(i, i + 1), 3).value()));
  }
}

TEST(Normalization, refuses_what_does_not_fit) {
  const auto zeros = [](const Shape& shape) { return Variable(Tensor::zeros(shape)); };
  const Variable x = zeros({2, 4, 3});
  EXPECT_TRUE(throws<ShapeError>([&] { layer_norm(x, {4}); }, "last axes are (4)", "(2, 4, 3)"));
  EXPECT_TRUE(throws<ShapeError>([&] { layer_norm(x, {1, 2, 4, 3}); }, "(1, 2, 4, 3)"));
  EXPECT_TRUE(throws<ShapeError>([&] { layer_norm(x, {}); }, "()"));
  EXPECT_TRUE(throws<ShapeError>([&] { layer_norm(zeros({2, 0}), {0}); }, "(0)"));
  EXPECT_TRUE(
      throws<ShapeError>([&] { layer_norm(x, {3}, zeros({4})); }, "weight of shape (3)", "(4)"));
  EXPECT_TRUE(throws<ShapeError>([&] { layer_norm(x, {3}, {}, zeros({4})); }, "bias of shape (3)"));
  EXPECT_TRUE(throws<ShapeError>([&] { group_norm(x, 2, zeros({3})); }, "weight of shape (4)"));
  EXPECT_TRUE(throws<ShapeError>([&] { group_norm(zeros({2}), 1); }, "(n, channels, ...)"));
  for (const std::int64_t groups : {0, 3, -1}) {
    EXPECT_TRUE(throws<OptionError>([&] { group_norm(x, groups); }, "divide 4 channels"));
  }
  EXPECT_TRUE(throws<OptionError>([&] { layer_norm(x, {3}, {}, {}, 0); }, "eps > 0"));
  EXPECT_THROW(layer_norm(x, {3}, Tensor::zeros({3}, DType::f64)), DTypeError);
  EXPECT_EQ(layer_norm(zeros({0, 3}), {3}).shape(), (Shape{0, 3}));
}

}  // namespace normalization_test
}  // namespace lockstep
