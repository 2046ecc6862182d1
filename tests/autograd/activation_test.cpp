#include <vector>

#include "lockstep/autograd/activations.hpp"
#include "lockstep/autograd/convolution.hpp"
#include "lockstep/autograd/operations.hpp"
#include "lockstep/nn/layers.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/gradient_check.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace activation_test {

using testing::uniform;
using Inputs = std::vector<Variable>;

constexpr Activation activations[] = {Activation::none, Activation::relu, Activation::tanh,
                                      Activation::sigmoid};

Variable apply(Activation f, const Variable& x) {
  switch (f) {
    case Activation::none:
      return x;
    case Activation::relu:
      return relu(x);
    case Activation::tanh:
      return tanh(x);
    case Activation::sigmoid:
      return sigmoid(x);
  }
  return {};
}

// The value of a function and its gradients by all inputs.
template <class F>
std::vector<Tensor> run(const std::vector<Tensor>& inputs, F function) {
  Inputs leaves;
  for (const Tensor& input : inputs) leaves.emplace_back(input, true);
  const Variable y = function(leaves);
  sum(y * y).backward();
  std::vector<Tensor> all{y.value()};
  for (const Variable& leaf : leaves) all.push_back(leaf.grad());
  return all;
}

template <class At, class After>
void expect_same_bits(const std::vector<Tensor>& inputs, At at_once, After one_after_the_other) {
  const std::vector<Tensor> found = run(inputs, at_once),
                            expected = run(inputs, one_after_the_other);
  for (std::size_t i = 0; i < found.size(); ++i) EXPECT_TRUE(bit_equal(found[i], expected[i])) << i;
}

Variable bias_of(const Inputs& x) { return x.size() > 2 ? x[2] : Variable(); }

TEST(Activation, of_a_linear_layer_has_the_bits_of_two_operations) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const Activation f : activations) {
      std::vector<Tensor> inputs{uniform({3, 5, 9}, 1, -1, 1, dtype),
                                 uniform({37, 9}, 2, -1, 1, dtype)};
      for (const bool bias : {false, true}) {
        if (bias) inputs.push_back(uniform({37}, 3, -1, 1, dtype));
        expect_same_bits(
            inputs, [f](const Inputs& x) { return linear(x[0], x[1], bias_of(x), f); },
            [f](const Inputs& x) { return apply(f, linear(x[0], x[1], bias_of(x))); });
      }
    }
  }
}

TEST(Activation, of_a_convolution_has_the_bits_of_two_operations) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const Activation f : activations) {
      std::vector<Tensor> inputs{uniform({3, 2, 7, 6}, 1, -1, 1, dtype),
                                 uniform({5, 2, 3, 3}, 2, -1, 1, dtype)};
      for (const bool bias : {false, true}) {
        if (bias) inputs.push_back(uniform({5}, 3, -1, 1, dtype));
        const ConvolutionOptions<> options{.padding = 1};
        expect_same_bits(
            inputs, [&](const Inputs& x) { return conv2d(x[0], x[1], bias_of(x), options, f); },
            [&](const Inputs& x) { return apply(f, conv2d(x[0], x[1], bias_of(x), options)); });
      }
    }
  }
}

TEST(Activation, differentiates) {
  for (const Activation f : activations) {
    testing::check_gradients([f](const Inputs& x) { return linear(x[0], x[1], x[2], f); },
                             {uniform({4, 3}, 1), uniform({5, 3}, 2), uniform({5}, 3)});
    testing::check_gradients([f](const Inputs& x) { return conv2d(x[0], x[1], x[2], {}, f); },
                             {uniform({2, 2, 4, 3}, 1), uniform({3, 2, 2, 2}, 2), uniform({3}, 3)});
  }
}

TEST(Sequential, gives_what_its_layers_give_one_after_the_other) {
  nn::Sequential model(nn::Conv2d(1, 3, 3, {.padding = 1}), nn::ReLU(), nn::MaxPool2d(2),
                       nn::Conv2d(3, 2, 1), nn::Tanh(), nn::ReLU(), nn::Flatten(), nn::Linear(8, 5),
                       nn::Sigmoid(), nn::Linear(5, 4), nn::Linear(4, 3), nn::GELU());
  model.initialize(3);
  const auto one_by_one = [&](const Inputs& x) {
    Variable y = x[0];
    for (std::size_t i = 0; i < model.size(); ++i) y = model[i](y);
    return y;
  };
  expect_same_bits(
      {uniform({3, 1, 4, 4}, 1, -1, 1, DType::f32)}, [&](const Inputs& x) { return model(x[0]); },
      one_by_one);
}

struct Doubled : nn::Linear {
  using Linear::Linear;
  Variable forward(const Variable& x) override { return 2.0 * Linear::forward(x); }
};
struct Negated : nn::ReLU {
  Variable forward(const Variable& x) override { return -ReLU::forward(x); }
};

TEST(Sequential, calls_what_is_derived_from_a_layer) {
  nn::Sequential model(Doubled(2, 3), nn::ReLU(), nn::Linear(3, 3), Negated());
  model.initialize(1);
  const Variable x = uniform({4, 2}, 1, -1, 1, DType::f32);
  const Variable expected = -relu(model[2](relu(2.0 * model.at<Doubled>(0).Linear::forward(x))));
  EXPECT_TRUE(bit_equal(model(x).value(), expected.value()));
}

}  // namespace activation_test
}  // namespace lockstep
