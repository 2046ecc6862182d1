#include <vector>

#include "lockstep/autograd/convolution.hpp"
#include "lockstep/autograd/pooling.hpp"
#include "lockstep/autograd/structure.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/gradient_check.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

// Convolutions and pooling of lines and of what is deep, with dilation and groups, and transposed.
namespace lockstep {
namespace windows_test {

using testing::check_gradients;
using testing::throws;
using testing::uniform;
using Inputs = std::vector<Variable>;

TEST(Windows, of_lines_and_of_what_is_deep_differentiate) {
  check_gradients(
      [](const Inputs& x) {
        return conv1d(x[0], x[1], x[2], {.stride = 2, .padding = 2, .dilation = 2, .groups = 2});
      },
      {uniform({2, 4, 9}, 1), uniform({6, 2, 3}, 2), uniform({6}, 3)});
  for (const std::int64_t padding : {0, 1}) {  // as many groups as channels
    check_gradients(
        [padding](const Inputs& x) {
          return conv2d(x[0], x[1], x[2], {.padding = padding, .groups = 3});
        },
        {uniform({2, 3, 6, 7}, 1), uniform({3, 1, 3, 2}, 2), uniform({3}, 3)});
  }
  check_gradients(
      [](const Inputs& x) {
        return conv3d(x[0], x[1], {},
                      {.stride = {2, 1, 1}, .padding = {0, 1, 2}, .dilation = {1, 2, 1}});
      },
      {uniform({1, 2, 3, 4, 3}, 1), uniform({2, 2, 2, 2, 3}, 2)});
  check_gradients(
      [](const Inputs& x) {
        return avg_pool3d(x[0], {1, 2, 3}, {.padding = {0, 1, 1}});
      },
      {uniform({1, 2, 2, 3, 4}, 1)});
  check_gradients(
      [](const Inputs& x) {
        return avg_pool1d(x[0], 3, {.stride = 1, .padding = 1, .count_include_pad = false});
      },
      {uniform({2, 2, 5}, 1)});
  check_gradients([](const Inputs& x) { return max_pool3d(x[0], 2, {.stride = Size3d(1)}); },
                  {uniform({1, 2, 3, 3, 3}, 1)});
  check_gradients([](const Inputs& x) { return max_pool1d(x[0], 2); }, {uniform({2, 2, 6}, 1)});
  check_gradients([](const Inputs& x) { return global_avg_pool(x[0]); },
                  {uniform({2, 3, 4, 2}, 1)});
}

TEST(Windows, of_transposed_convolutions_differentiate) {
  check_gradients(
      [](const Inputs& x) {
        return conv_transpose1d(x[0], x[1], x[2], {.stride = 2, .padding = 1, .output_padding = 1});
      },
      {uniform({2, 3, 4}, 1), uniform({3, 2, 3}, 2), uniform({2}, 3)});
  check_gradients(
      [](const Inputs& x) {
        return conv_transpose2d(x[0], x[1], x[2],
                                {.stride = {1, 2}, .dilation = {2, 1}, .groups = 2});
      },
      {uniform({1, 4, 2, 3}, 1), uniform({4, 1, 2, 3}, 2), uniform({2}, 3)});
  check_gradients([](const Inputs& x) { return conv_transpose3d(x[0], x[1], {}, {.padding = 1}); },
                  {uniform({1, 2, 2, 2, 3}, 1), uniform({2, 1, 3, 2, 2}, 2)});
}

// ⟨conv(x), y⟩ = ⟨x, conv_transpose(y)⟩
TEST(Windows, of_a_transposed_convolution_are_the_adjoint) {
  const Variable x = uniform({2, 3, 7, 8}, 1), w = uniform({4, 3, 3, 2}, 2);
  const Variable z = conv2d(x, w, {}, {.stride = {2, 3}, .padding = {1, 0}});
  const Variable y = uniform(z.shape(), 3);
  const Variable back = conv_transpose2d(y, w, {}, {.stride = {2, 3}, .padding = {1, 0}});
  ASSERT_EQ(back.shape(), x.shape());
  EXPECT_NEAR(sum(z * y).value().item(), sum(x * back).value().item(), 1e-12);
}

TEST(Windows, of_groups_are_those_of_each_group) {
  const Variable x = uniform({2, 4, 6, 5}, 1), w = uniform({6, 2, 3, 3}, 2);
  std::vector<Variable> parts;
  for (std::int64_t group = 0; group < 2; ++group) {
    parts.push_back(
        conv2d(slice(x, 1, 2 * group, 2 * group + 2), slice(w, 0, 3 * group, 3 * group + 3), {}));
  }
  EXPECT_TRUE(bit_equal(conv2d(x, w, {}, {.groups = 2}).value(), concatenate(parts, 1).value()));
}

// A kernel with zeros between its taps.
TEST(Windows, of_dilation_are_those_of_a_larger_kernel) {
  const Variable x = uniform({1, 1, 3, 7}, 1), w = uniform({1, 1, 1, 3}, 2);
  Tensor wide = Tensor::zeros({1, 1, 1, 5}, DType::f64);
  for (std::size_t i = 0; i < 3; ++i) wide.span<double>()[2 * i] = w.value().span<double>()[i];
  testing::expect_near(conv2d(x, w, {}, {.dilation = {1, 2}}).value(), conv2d(x, wide, {}).value(),
                       1e-15, "value");
}

TEST(Windows, of_a_flat_image_are_those_of_an_image) {
  const Tensor x = uniform({2, 3, 6, 5}, 1), w = uniform({4, 3, 3, 2}, 2);
  const Variable deep =
      conv3d(x.reshape({2, 3, 1, 6, 5}), w.reshape({4, 3, 1, 3, 2}), {}, {.padding = {0, 1, 1}});
  const Variable image = conv2d(x, w, {}, {.padding = 1});
  EXPECT_TRUE(bit_equal(deep.value().reshape(image.shape()), image.value()));
  EXPECT_TRUE(
      bit_equal(max_pool3d(x.reshape({2, 3, 1, 6, 5}), {1, 2, 2}).value().reshape({2, 3, 3, 2}),
                max_pool2d(x, 2).value()));
}

TEST(Windows, refuse_what_does_not_fit) {
  const auto zeros = [](const Shape& shape) { return Variable(Tensor::zeros(shape)); };
  const Variable line = zeros({2, 4, 5}), w = zeros({6, 2, 3});
  EXPECT_TRUE(throws<ShapeError>(
      [&] {
        conv1d(zeros({2, 4, 5, 5}), w, {});
      },
      "conv1d", "(n, 2, length)"));
  EXPECT_TRUE(throws<ShapeError>([&] { conv1d(line, w, {}); }, "(n, 2, length)", "(2, 4, 5)"));
  EXPECT_TRUE(throws<ShapeError>(
      [&] {
        conv1d(line, zeros({6, 4, 3, 1}), {});
      },
      "(out, in, length)"));
  EXPECT_TRUE(throws<ShapeError>(
      [&] {
        conv1d(line, zeros({6, 4, 3}), {}, {.dilation = 3});
      },
      "at least 7"));
  for (const std::int64_t groups : {0, -1, 4}) {
    EXPECT_TRUE(throws<OptionError>([&] { conv1d(line, w, {}, {.groups = groups}); }, "groups"));
  }
  EXPECT_TRUE(throws<OptionError>(
      [&] {
        conv1d(line, zeros({6, 4, 3}), {}, {.dilation = 0});
      },
      "dilation >= 1"));
  EXPECT_TRUE(throws<ShapeError>(
      [&] {
        conv3d(line, zeros({6, 4, 1, 1, 1}), {});
      },
      "(n, 4, depth, height, width)"));
  EXPECT_TRUE(throws<ShapeError>(
      [&] {
        conv_transpose1d(line, zeros({3, 2, 3}), {});
      },
      "(n, 3, length)"));
  EXPECT_TRUE(throws<OptionError>(
      [&] {
        conv_transpose1d(line, zeros({4, 2, 3}), {}, {.stride = 2, .output_padding = 2});
      },
      "output_padding", "2"));
  EXPECT_TRUE(throws<ShapeError>(
      [&] {
        conv_transpose1d(zeros({2, 4, 1}), zeros({4, 2, 2}), {}, {.padding = 1});
      },
      "cuts off all"));
  EXPECT_TRUE(
      throws<OptionError>([&] { avg_pool1d(line, 3, {.padding = 2}); }, "padding <= kernel / 2"));
  EXPECT_TRUE(throws<ShapeError>([&] { avg_pool2d(line, 2); }, "(n, channels, height, width)"));
  EXPECT_TRUE(throws<ShapeError>([&] { global_avg_pool(zeros({2, 3})); }, "(n, channels, ...)"));
}

}  // namespace windows_test
}  // namespace lockstep
