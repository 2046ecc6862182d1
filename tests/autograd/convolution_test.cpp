#include "lockstep/autograd/convolution.hpp"
#include "lockstep/autograd/pooling.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/gradient_check.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace convolution_test {

using testing::check_gradients;
using testing::throws;
using testing::uniform;
using Inputs = std::vector<Variable>;
using Numbers = std::vector<double>;

constexpr double inf = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr std::int64_t largest = std::numeric_limits<std::int64_t>::max();

Numbers values(const Tensor& x) {
  const Tensor numbers = x.to(DType::f64);
  return {numbers.span<double>().begin(), numbers.span<double>().end()};
}
Numbers values(const Variable& x) { return values(x.value()); }

// One sample of one channel.
Variable image(const Numbers& numbers, std::int64_t height, std::int64_t width) {
  return Variable(Tensor::from(numbers, {1, 1, height, width}), true);
}

Variable zeros(const Shape& shape, DType dtype = DType::f32) { return Tensor::zeros(shape, dtype); }

const Numbers one_to_nine{1, 2, 3, 4, 5, 6, 7, 8, 9};

// The rows of function(batch), and of the gradient by batch, are those of smaller batches.
template <class F>
void expect_same_bits_in_any_batch(const Tensor& batch, F function) {
  const auto run = [&](const Tensor& x) {
    const Variable leaf(x, true), result = function(leaf);
    sum(result * result).backward();
    return std::vector<Tensor>{result.value(), leaf.grad()};
  };
  const std::int64_t samples = batch.shape()[0];
  const std::vector<Tensor> whole = run(batch);
  for (const std::int64_t size : {1, 3}) {
    for (std::int64_t begin = 0; begin + size <= samples; ++begin) {
      const std::vector<Tensor> part = run(batch.rows(begin, begin + size));
      for (std::size_t i = 0; i < part.size(); ++i) {
        EXPECT_TRUE(bit_equal(part[i], whole[i].rows(begin, begin + size)))
            << (i == 0 ? "value" : "gradient") << " of " << size << " from sample " << begin
            << " of shape " << to_string(batch.shape()) << ", " << to_string(batch.dtype());
      }
    }
  }
}

TEST(Conv2dOperation, slides_a_kernel_over_the_padded_image) {
  const Variable x = image(one_to_nine, 3, 3);
  EXPECT_EQ(values(conv2d(x, image({1, 0, 0, 0}, 2, 2), {})), (Numbers{1, 2, 4, 5}));
  EXPECT_EQ(values(conv2d(x, image({0, 10, 1, 0}, 2, 2), {})), (Numbers{24, 35, 57, 68}));
  const Variable bias = Tensor::full({1}, 100, DType::f64);
  EXPECT_EQ(
      values(conv2d(x, image({1, 0, 0, 1}, 2, 2), bias, {.stride = {1, 2}, .padding = {0, 1}})),
      (Numbers{104, 108, 107, 114}));
}

TEST(Conv2dOperation, has_the_sizes_of_pytorch) {
  const auto shape = [](const Shape& x, Size2d kernel, const ConvolutionOptions<>& options) {
    return conv2d(zeros(x), zeros({5, 3, kernel.height, kernel.width}), {}, options).shape();
  };
  EXPECT_EQ(shape({2, 3, 28, 28}, 3, {}), (Shape{2, 5, 26, 26}));
  EXPECT_EQ(shape({2, 3, 28, 20}, 3, {.padding = 1}), (Shape{2, 5, 28, 20}));
  EXPECT_EQ(shape({2, 3, 28, 27}, {3, 2}, {.stride = {2, 5}}), (Shape{2, 5, 13, 6}));
  EXPECT_EQ(shape({2, 3, 1, 1}, {3, 5}, {.padding = {1, 2}}), (Shape{2, 5, 1, 1}));
  EXPECT_EQ(shape({2, 3, 4, 4}, 4, {.stride = largest}), (Shape{2, 5, 1, 1}));
}

TEST(Conv2dOperation, differentiates) {
  struct Case {
    Size2d image, kernel;
    ConvolutionOptions<> options;
  };
  const std::vector<Case> cases{
      {{4, 5}, 1, {}},
      {{4, 5}, {3, 2}, {}},
      {{5, 6}, 3, {.padding = 1}},
      {{5, 6}, 2, {.stride = {2, 3}, .padding = {1, 0}}},
      {{6, 5}, {2, 1}, {.stride = {3, 2}, .padding = {0, 2}}},
      {{1, 2}, {3, 4}, {.stride = 2, .padding = {3, 1}}},
      {{1, 1}, {3, 3}, {.padding = 1}},
  };
  for (const Case& c : cases) {
    const std::vector<Tensor> inputs{uniform({3, 2, c.image.height, c.image.width}, 1),
                                     uniform({4, 2, c.kernel.height, c.kernel.width}, 2),
                                     uniform({4}, 3)};
    check_gradients([&](const Inputs& x) { return conv2d(x[0], x[1], x[2], c.options); }, inputs);
    check_gradients([&](const Inputs& x) { return conv2d(x[0], x[1], {}, c.options); },
                    {inputs[0], inputs[1]});
  }
}

TEST(Conv2dOperation, computes_the_gradients_that_are_wanted) {
  const std::vector<Tensor> inputs{uniform({3, 2, 5, 4}, 1), uniform({4, 2, 3, 2}, 2),
                                   uniform({4}, 3)};
  const std::vector<Variable> all = testing::leaves(inputs, DType::f64);
  testing::weighted_sum(conv2d(all[0], all[1], all[2])).backward();
  for (std::size_t only = 0; only < 3; ++only) {
    std::vector<Variable> some;
    for (std::size_t i = 0; i < 3; ++i) some.emplace_back(inputs[i], i == only);
    testing::weighted_sum(conv2d(some[0], some[1], some[2])).backward();
    for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(some[i].has_grad(), i == only);
    EXPECT_TRUE(bit_equal(some[only].grad(), all[only].grad()));
  }
}

TEST(Conv2dOperation, gives_a_sample_the_same_bits_in_any_batch) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    // Products whose rows and columns are whole vectors, and those with a rest.
    for (const std::int64_t out : {1, 7, 16}) {
      for (const std::int64_t extent : {3, 6, 9}) {
        const Tensor weight = uniform({out, 3, 3, 3}, 2, -1, 1, dtype);
        const Tensor bias = uniform({out}, 3, -1, 1, dtype);
        expect_same_bits_in_any_batch(uniform({8, 3, extent, extent}, 1, -1, 1, dtype),
                                      [&](const Variable& x) {
                                        return conv2d(x, weight, bias, {.padding = {0, 1}});
                                      });
      }
    }
  }
}

TEST(Conv2dOperation, of_no_samples_gives_gradients_of_zero) {
  const Variable x(Tensor::zeros({0, 2, 5, 4}, DType::f64), true);
  const Variable weight(uniform({3, 2, 2, 2}, 1), true), bias(uniform({3}, 2), true);
  const Variable y = conv2d(x, weight, bias);
  EXPECT_EQ(y.shape(), (Shape{0, 3, 4, 3}));
  sum(y).backward();
  EXPECT_EQ(x.grad().shape(), x.shape());
  EXPECT_TRUE(bit_equal(weight.grad(), Tensor::zeros({3, 2, 2, 2}, DType::f64)));
  EXPECT_TRUE(bit_equal(bias.grad(), Tensor::zeros({3}, DType::f64)));
}

TEST(Conv2dOperation, of_no_channels_is_the_bias) {
  const Variable bias = Tensor::from(Numbers{1, 2}, {2});
  const auto channels = [](std::int64_t out, std::int64_t in) {
    return zeros({out, in, 2, 2}, DType::f64);
  };
  EXPECT_EQ(values(conv2d(channels(1, 0), channels(2, 0), bias)), (Numbers{1, 2}));
  EXPECT_EQ(values(conv2d(channels(1, 0), channels(2, 0), {})), (Numbers{0, 0}));
  EXPECT_EQ(conv2d(channels(1, 3), channels(0, 3), {}).shape(), (Shape{1, 0, 1, 1}));
}

TEST(Conv2dOperation, refuses_what_does_not_fit) {
  const Variable x = zeros({2, 3, 4, 5}), weight = zeros({6, 3, 2, 2});
  const auto refuses = [](const Variable& a, const Variable& b, const Variable& c,
                          const auto&... parts) {
    return throws<ShapeError>([&] { conv2d(a, b, c); }, "conv2d", parts...);
  };
  EXPECT_TRUE(refuses(zeros({3, 4, 5}), weight, {}, "(n, 3, height, width)", "(3, 4, 5)"));
  EXPECT_TRUE(refuses(zeros({2, 4, 4, 5}), weight, {}, "(n, 3, height, width)", "(2, 4, 4, 5)"));
  EXPECT_TRUE(refuses(x, zeros({6, 3, 2}), {}, "(out, in, height, width)", "(6, 3, 2)"));
  EXPECT_TRUE(refuses(x, zeros({6, 3, 0, 2}), {}, "(out, in, height, width)", "(6, 3, 0, 2)"));
  EXPECT_TRUE(refuses(x, weight, zeros({3}), "bias of shape (6)", "(3)"));
  EXPECT_TRUE(refuses(x, weight, zeros({1, 6}), "bias of shape (6)", "(1, 6)"));
  EXPECT_TRUE(refuses(x, zeros({6, 3, 5, 2}), {}, "5 x 2", "at least 5 x 2", "(2, 3, 4, 5)"));
  EXPECT_TRUE(refuses(x, zeros({6, 3, 2, 6}), {}, "2 x 6", "(2, 3, 4, 5)"));
  EXPECT_TRUE(throws<ShapeError>(
      [&] {
        conv2d(x, zeros({6, 3, 7, 2}), {}, {.padding = 1});
      },
      "7 x 2", "padding 1 x 1", "at least 5 x 1"));
  EXPECT_NO_THROW(conv2d(x, zeros({6, 3, 6, 2}), {}, {.padding = 1}));
  EXPECT_THROW(conv2d(zeros({2, 3, 0, 5}), weight, {}, {.padding = 1}), ShapeError);
  EXPECT_THROW(conv2d(zeros({2, 3, 4, 5}, DType::f64), weight, {}), DTypeError);
  EXPECT_THROW(conv2d(x, weight, zeros({6}, DType::f64)), DTypeError);
  EXPECT_THROW(conv2d(zeros({2, 3, 4, 5}, DType::i64), weight, {}), DTypeError);
  EXPECT_THROW(conv2d({}, weight, {}), StateError);
  EXPECT_THROW(conv2d(x, {}, {}), StateError);
}

TEST(Conv2dOperation, refuses_options_outside_their_range) {
  const auto refuses = [](const ConvolutionOptions<>& options, const auto&... parts) {
    return throws<OptionError>(
        [&] {
          conv2d(zeros({1, 1, 4, 4}), zeros({1, 1, 2, 2}), {}, options);
        },
        "conv2d", parts...);
  };
  EXPECT_TRUE(refuses({.stride = 0}, "stride >= 1", "0 x 0"));
  EXPECT_TRUE(refuses({.stride = {0, 1}}, "stride >= 1", "0 x 1"));
  EXPECT_TRUE(refuses({.stride = {1, -2}}, "stride >= 1", "1 x -2"));
  EXPECT_TRUE(refuses({.padding = {-1, 0}}, "padding >= 0", "-1 x 0"));
  EXPECT_TRUE(refuses({.padding = {0, -1}}, "padding >= 0", "0 x -1"));
  EXPECT_TRUE(refuses({.padding = {largest, 0}}, "padding < 2^31"));
  EXPECT_TRUE(refuses({.padding = {0, largest}}, "padding < 2^31"));
}

TEST(MaxPool2dOperation, takes_the_maximum_of_each_window) {
  const Variable x = image({1, 2, 9, 4,   //
                            5, 6, 7, 8,   //
                            -1, 0, 3, 2,  //
                            -3, -2, 1, 0},
                           4, 4);
  EXPECT_EQ(values(max_pool2d(x, 2)), (Numbers{6, 9, 0, 3}));
  EXPECT_EQ(values(max_pool2d(x, 3)), (Numbers{9})) << "what is left over is not pooled";
  EXPECT_EQ(values(max_pool2d(x, {1, 4})), (Numbers{9, 8, 3, 1}));
  EXPECT_EQ(values(max_pool2d(x, 3, {.stride = 1})), (Numbers{9, 9, 7, 8}));
  EXPECT_EQ(values(max_pool2d(x, 2, {.stride = 3, .padding = 1})), (Numbers{1, 9, -1, 3}));
  EXPECT_EQ(values(max_pool2d(x * -1.0, {3, 1}, {.padding = {1, 0}})),
            (Numbers{-1, -2, -7, -4, 3, 2, -1, 0}))
      << "the padding is never a maximum";
}

TEST(MaxPool2dOperation, differentiates) {
  const std::vector<Tensor> inputs{uniform({2, 3, 6, 5}, 1)};
  for (const Size2d kernel : {Size2d(1), Size2d(2), Size2d(3, 2), Size2d(6, 5)}) {
    check_gradients([&](const Inputs& x) { return max_pool2d(x[0], kernel); }, inputs);
  }
  check_gradients([](const Inputs& x) { return max_pool2d(x[0], 3, {.stride = 1}); }, inputs);
  check_gradients([](const Inputs& x) { return max_pool2d(x[0], 2, {.stride = 3}); }, inputs);
  check_gradients(
      [](const Inputs& x) {
        return max_pool2d(x[0], {2, 3}, {.stride = Size2d(1, 2), .padding = 1});
      },
      inputs);
}

TEST(MaxPool2dOperation, gives_the_gradient_to_the_first_of_equal_maxima) {
  const Variable x = image({0, 3, 3, 3, 0, 0, 3, 0, 0}, 3, 3);
  sum(max_pool2d(x, 3)).backward();
  EXPECT_EQ(values(x.grad()), (Numbers{0, 1, 0, 0, 0, 0, 0, 0, 0}));
  const Variable lowest = image(Numbers(4, -inf), 2, 2);
  const Variable y = max_pool2d(lowest, 2, {.stride = 1, .padding = 1});
  EXPECT_EQ(values(y), Numbers(9, -inf));
  sum(y).backward();
  EXPECT_EQ(values(lowest.grad()), (Numbers{4, 2, 2, 1}));
}

TEST(MaxPool2dOperation, gives_nan_for_a_window_with_nan_and_the_gradient_to_the_last) {
  const Variable x = image({nan, inf, 1, 5,  //
                            nan, 7, nan, -inf},
                           2, 4);
  const Variable y = max_pool2d(x, 2);
  EXPECT_TRUE(std::isnan(values(y)[0]));
  EXPECT_TRUE(std::isnan(values(y)[1]));
  sum(y).backward();
  EXPECT_EQ(values(x.grad()), (Numbers{0, 0, 0, 0, 1, 0, 1, 0}));
}

TEST(MaxPool2dOperation, gives_a_sample_the_same_bits_in_any_batch) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    expect_same_bits_in_any_batch(uniform({8, 3, 7, 5}, 1, -1, 1, dtype), [](const Variable& x) {
      return max_pool2d(x, 3, {.stride = 2, .padding = 1});
    });
  }
}

TEST(MaxPool2dOperation, of_nothing_is_nothing) {
  const Variable x(Tensor::zeros({0, 3, 4, 4}), true);
  const Variable y = max_pool2d(x, 2);
  EXPECT_EQ(y.shape(), (Shape{0, 3, 2, 2}));
  sum(y).backward();
  EXPECT_EQ(x.grad().shape(), x.shape());
  EXPECT_EQ(max_pool2d(zeros({2, 0, 4, 4}), 2).shape(), (Shape{2, 0, 2, 2}));
}

TEST(MaxPool2dOperation, refuses_what_does_not_fit) {
  const Variable x = zeros({2, 3, 4, 5});
  const auto refuses = [&]<class Error>(Error, Size2d kernel, const PoolingOptions<>& options,
                                        const auto&... parts) {
    return throws<Error>([&] { max_pool2d(x, kernel, options); }, "max_pool2d", parts...);
  };
  const ShapeError shape("");
  const OptionError option("");
  EXPECT_TRUE(refuses(shape, {5, 1}, {}, "5 x 1", "(2, 3, 4, 5)"));
  EXPECT_TRUE(refuses(shape, {1, 6}, {}, "1 x 6", "(2, 3, 4, 5)"));
  EXPECT_TRUE(refuses(shape, 7, {.padding = 1}, "7 x 7", "padding 1 x 1", "at least 5 x 5"));
  EXPECT_TRUE(throws<ShapeError>(
      [&] {
        max_pool2d(zeros({3, 4, 5}), 2);
      },
      "(n, channels", "(3, 4, 5)"));
  EXPECT_THROW(max_pool2d(zeros({1, 1, 0, 4}), 2, {.padding = 1}), ShapeError);
  EXPECT_TRUE(refuses(option, {2, 0}, {}, "kernel >= 1", "2 x 0"));
  EXPECT_TRUE(refuses(option, -1, {}, "kernel >= 1", "-1 x -1"));
  EXPECT_TRUE(refuses(option, 2, {.stride = 0}, "stride >= 1", "0 x 0"));
  EXPECT_TRUE(refuses(option, 2, {.padding = -1}, "padding >= 0", "-1 x -1"));
  EXPECT_TRUE(refuses(option, {4, 3}, {.padding = 2}, "padding <= kernel / 2", "2 x 2"));
  EXPECT_TRUE(refuses(option, {3, 4}, {.padding = 2}, "padding <= kernel / 2"));
  EXPECT_THROW(max_pool2d(zeros({1, 1, 4, 4}, DType::i64), 2), DTypeError);
  EXPECT_THROW(max_pool2d({}, 2), StateError);
}

}  // namespace convolution_test
}  // namespace lockstep
