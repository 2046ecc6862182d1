// A convolution, an activation and a max pooling in a row are one operation, which has the bits of three.

#include <memory>
#include <vector>

#include "lockstep/autograd/activations.hpp"
#include "lockstep/autograd/operations.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/core/threads.hpp"
#include "lockstep/nn/layers.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/gradient_check.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace pooled_convolution_test {

using namespace nn;
using testing::throws;
using testing::uniform;

// What a function of x gives, and the gradients of its squares' sum by x and all parameters.
template <class F>
std::vector<Tensor> results(const Sequential& model, const Tensor& x, F function) {
  std::vector<NamedParameter> parameters = model.named_parameters();
  for (auto& [name, parameter] : parameters) parameter.zero_grad();
  const Variable leaf(x, true);
  const Variable y = function(leaf);
  sum(y * y).backward();
  std::vector<Tensor> all{y.value(), leaf.grad()};
  for (const auto& [name, parameter] : parameters) all.push_back(parameter.grad().clone());
  return all;
}

void expect_bits_of_modules(Sequential model, const Tensor& x) {
  model.initialize(1);
  const std::vector<Tensor> expected = results(model, x, [&](const Variable& leaf) {
    Variable y = leaf;
    for (std::size_t i = 0; i < model.size(); ++i) y = model[i](y);
    return y;
  });
  for (const int count : {1, 2, 3}) {
    set_threads(count);
    const std::vector<Tensor> found =
        results(model, x, [&](const Variable& leaf) { return model(leaf); });
    set_threads(1);
    ASSERT_EQ(found.size(), expected.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
      EXPECT_TRUE(bit_equal(found[i], expected[i])) << i << ", threads: " << count;
    }
  }
}

class PooledConvolution : public ::testing::TestWithParam<DType> {
 protected:
  static Tensor images(const Shape& shape) { return uniform(shape, 5, -1, 1, GetParam()); }

  // Without an activation, and with each.
  template <class Make>
  static void expect_bits(const Tensor& x, Make make) {
    expect_bits_of_modules(make(nullptr), x);
    expect_bits_of_modules(make(std::make_shared<ReLU>()), x);
    expect_bits_of_modules(make(std::make_shared<Tanh>()), x);
    expect_bits_of_modules(make(std::make_shared<Sigmoid>()), x);
  }
};
INSTANTIATE_TEST_SUITE_P(Types, PooledConvolution, ::testing::Values(DType::f32, DType::f64));

template <class Conv, class Pool>
Sequential in_a_row(const Conv& conv, const std::shared_ptr<Module>& activation, const Pool& pool) {
  Sequential model;
  model.append(conv);
  if (activation != nullptr) model.append(activation);
  model.append(pool);
  return model;
}

TEST_P(PooledConvolution, of_images_has_the_bits_of_its_modules) {
  const DType dtype = GetParam();
  for (const std::int64_t channels : {2, 30}) {  // the latter by Winograd's
    const Tensor x = images({5, channels, 14, 13});
    for (const MaxPool2d& pool :
         {MaxPool2d(2), MaxPool2d(3), MaxPool2d({1, 2}), MaxPool2d(2, {.stride = 3}),
          MaxPool2d(2, {.padding = 1}), MaxPool2d(1)}) {
      expect_bits(x, [&](const std::shared_ptr<Module>& activation) {
        return in_a_row(Conv2d(channels, 28, 3, {.padding = 1, .dtype = dtype}), activation, pool);
      });
    }
    expect_bits(x, [&](const std::shared_ptr<Module>& activation) {
      return in_a_row(Conv2d(channels, 4, 3, {.stride = 2, .bias = false, .dtype = dtype}),
                      activation, MaxPool2d(2));
    });
  }
}

TEST_P(PooledConvolution, of_lines_and_of_what_is_deep_has_the_bits_of_its_modules) {
  const DType dtype = GetParam();
  expect_bits(images({4, 3, 40}), [&](const std::shared_ptr<Module>& activation) {
    return in_a_row(Conv1d(3, 5, 4, {.dtype = dtype}), activation, MaxPool1d(3));
  });
  expect_bits(images({2, 2, 6, 7, 8}), [&](const std::shared_ptr<Module>& activation) {
    return in_a_row(Conv3d(2, 3, 2, {.dtype = dtype}), activation, MaxPool3d(2));
  });
}

TEST_P(PooledConvolution, with_groups_or_windows_that_overlap_has_the_bits_of_its_modules) {
  const DType dtype = GetParam();
  const Tensor x = images({3, 4, 9, 9});
  expect_bits(x, [&](const std::shared_ptr<Module>& activation) {
    return in_a_row(Conv2d(4, 6, 3, {.groups = 2, .dtype = dtype}), activation, MaxPool2d(2));
  });
  expect_bits(x, [&](const std::shared_ptr<Module>& activation) {
    return in_a_row(Conv2d(4, 6, 3, {.dtype = dtype}), activation, MaxPool2d(3, {.stride = 2}));
  });
}

TEST_P(PooledConvolution, of_no_samples_is_empty) {
  Sequential model(Conv2d(1, 2, 3, {.dtype = GetParam()}), ReLU(), MaxPool2d(2));
  EXPECT_EQ(model(images({0, 1, 8, 8})).shape(), (Shape{0, 2, 3, 3}));
}

TEST(PooledConvolutionErrors, are_those_of_its_modules) {
  Sequential model(Conv2d(1, 2, 3), ReLU(), MaxPool2d(4));
  EXPECT_TRUE(throws<ShapeError>([&] { model(Tensor::zeros({1, 3, 9, 9})); }, "conv2d"));
  EXPECT_TRUE(throws<ShapeError>([&] { model(Tensor::zeros({1, 1, 5, 5})); }, "max_pool2d"));
}

struct Doubled : MaxPool2d {
  using MaxPool2d::MaxPool2d;
  Variable forward(const Variable& x) override { return 2.0 * MaxPool2d::forward(x); }
};

TEST(PooledConvolutionOfADerivedPooling, calls_it) {
  const auto convolution = std::make_shared<Conv2d>(1, 2, 3);
  Sequential model, plain;
  model.append(convolution);
  model.append(Doubled(2));
  plain.append(convolution);
  plain.append(MaxPool2d(2));
  model.initialize(1);
  const Variable x = uniform({2, 1, 8, 8}, 1, -1, 1, DType::f32);
  EXPECT_TRUE(bit_equal(model(x).value(), (2.0 * plain(x)).value()));
}

}  // namespace pooled_convolution_test
}  // namespace lockstep
