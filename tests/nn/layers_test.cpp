#include "lockstep/nn/layers.hpp"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "lockstep/autograd/structure.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/gradient_check.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::nn {
namespace layers_test {

using testing::expect_near;
using testing::throws;
using testing::uniform;

// Drawn from U(-bound, bound).
void expect_start(const Tensor& tensor, float bound) {
  float low = 0, high = 0;
  for (const float value : tensor.span<float>()) {
    low = std::min(low, value), high = std::max(high, value);
  }
  EXPECT_GE(low, -bound);
  EXPECT_LT(low, -0.96F * bound);
  EXPECT_LE(high, bound);
  EXPECT_GT(high, 0.96F * bound);
}

TEST(Linear, takes_inputs_of_any_rank_row_by_row) {
  Linear layer(3, 2, {.dtype = DType::f64});
  const Tensor x = uniform({2, 4, 3}, 1);
  const Variable y = layer(x);
  EXPECT_EQ(y.shape(), (Shape{2, 4, 2}));
  EXPECT_TRUE(bit_equal(layer(x.reshape({8, 3})).value(), y.value().reshape({8, 2})));
  for (std::int64_t row = 0; row < 8; ++row) {
    const Variable one = layer(x.reshape({8, 3}).rows(row, row + 1).reshape({3}));
    EXPECT_EQ(one.shape(), Shape{2});
    expect_near(one.value(), y.value().reshape({8, 2}).rows(row, row + 1).reshape({2}), 1e-15,
                "row");
  }
}

TEST(Linear, has_the_shapes_dtype_and_start_of_pytorch) {
  const Linear layer(16, 500);
  EXPECT_EQ(layer.weight.shape(), (Shape{500, 16}));
  EXPECT_EQ(layer.bias.shape(), Shape{500});
  EXPECT_EQ(layer.weight.dtype(), DType::f32);
  expect_start(layer.weight.value(), 0.25F);
  expect_start(layer.bias.value(), 0.25F);
  EXPECT_EQ(Linear(2, 2, {.dtype = DType::f64}).bias.dtype(), DType::f64);
}

TEST(Linear, without_a_bias_has_one_parameter) {
  Linear layer(3, 2, {.bias = false});
  EXPECT_FALSE(layer.bias.defined());
  EXPECT_EQ(layer.named_parameters().size(), 1U);
  EXPECT_EQ(layer(Tensor::zeros({3})).value().data<float>()[0], 0);
  EXPECT_NO_THROW(layer.initialize(1));
}

TEST(Linear, refuses_what_does_not_fit) {
  Linear layer(3, 2);
  EXPECT_TRUE(throws<ShapeError>([&] { layer(Tensor::zeros({4, 2})); }, "(..., 3)", "(4, 2)"));
  EXPECT_TRUE(throws<ShapeError>([&] { layer(Tensor::zeros({})); }, "()"));
  EXPECT_THROW(layer(Tensor::zeros({4, 3}, DType::f64)), DTypeError);
  EXPECT_THROW(layer(Tensor::zeros({4, 3}, DType::i64)), DTypeError);
  EXPECT_THROW(Linear(-1, 2), ShapeError);
  EXPECT_THROW(Linear(2, 2, {.dtype = DType::i64}), DTypeError);
}

TEST(Conv2d, has_the_shapes_dtype_and_start_of_pytorch) {
  const Conv2d layer(2, 500, {2, 4});
  EXPECT_EQ(layer.weight.shape(), (Shape{500, 2, 2, 4}));
  EXPECT_EQ(layer.bias.shape(), Shape{500});
  EXPECT_EQ(layer.weight.dtype(), DType::f32);
  expect_start(layer.weight.value(), 0.25F);
  expect_start(layer.bias.value(), 0.25F);
  EXPECT_EQ(Conv2d(1, 2, 3, {.dtype = DType::f64}).bias.dtype(), DType::f64);
}

TEST(Conv2d, is_conv2d_with_its_options) {
  const Tensor x = uniform({2, 3, 6, 7}, 1);
  Conv2d plain(3, 4, {2, 3}, {.dtype = DType::f64});
  EXPECT_TRUE(bit_equal(plain(x).value(), conv2d(x, plain.weight, plain.bias).value()));
  Conv2d layer(3, 4, 3, {.stride = {2, 1}, .padding = {0, 2}, .dtype = DType::f64});
  const Variable y = layer(x);
  EXPECT_EQ(y.shape(), (Shape{2, 4, 2, 9}));
  EXPECT_TRUE(bit_equal(
      y.value(),
      conv2d(x, layer.weight, layer.bias, {.stride = {2, 1}, .padding = {0, 2}}).value()));
}

TEST(Conv2d, draws_its_parameters_by_name) {
  Sequential model{Conv2d(1, 2, 3), Conv2d(1, 2, 3)}, same{Conv2d(1, 2, 3), Conv2d(1, 2, 3)};
  model.initialize(5);
  EXPECT_EQ(model.named_parameters().size(), 4U);
  EXPECT_EQ(model.named_parameters()[2].name, "1.weight");
  const Tensor first = model.at<Conv2d>(0).weight.value();
  EXPECT_FALSE(bit_equal(first, model.at<Conv2d>(1).weight.value()));
  EXPECT_FALSE(bit_equal(first, same.at<Conv2d>(0).weight.value()));
  same.initialize(5);
  EXPECT_TRUE(bit_equal(first, same.at<Conv2d>(0).weight.value()));
}

TEST(Conv2d, without_a_bias_has_one_parameter) {
  Conv2d layer(3, 2, 1, {.bias = false});
  EXPECT_FALSE(layer.bias.defined());
  EXPECT_EQ(layer.named_parameters().size(), 1U);
  EXPECT_EQ(layer(Tensor::zeros({1, 3, 1, 1})).value().data<float>()[0], 0);
  EXPECT_NO_THROW(layer.initialize(1));
}

TEST(Conv2d, refuses_what_does_not_fit) {
  Conv2d layer(3, 2, 2);
  EXPECT_TRUE(throws<ShapeError>([&] { layer(Tensor::zeros({1, 2, 4, 4})); }, "(n, 3, "));
  EXPECT_TRUE(throws<OptionError>([] { Conv2d(1, 1, {3, 0}); }, "Conv2d", "kernel >= 1", "3 x 0"));
  EXPECT_TRUE(throws<OptionError>([] { Conv2d(1, 1, 3, {.stride = 0}); }, "Conv2d", "stride >= 1"));
  EXPECT_TRUE(throws<OptionError>([] { Conv2d(1, 1, 3, {.padding = -1}); }, "padding >= 0"));
  EXPECT_THROW(Conv2d(-1, 2, 3), ShapeError);
  EXPECT_THROW(Conv2d(2, 2, 3, {.dtype = DType::i64}), DTypeError);
}

TEST(MaxPool2d, is_max_pool2d_with_its_options) {
  const Tensor x = uniform({2, 3, 6, 7}, 1);
  MaxPool2d plain(2), layer({2, 3}, {.stride = 1, .padding = {1, 0}});
  EXPECT_EQ(plain(x).shape(), (Shape{2, 3, 3, 3}));
  EXPECT_TRUE(bit_equal(plain(x).value(), max_pool2d(x, 2).value()));
  EXPECT_EQ(layer(x).shape(), (Shape{2, 3, 7, 5}));
  EXPECT_TRUE(
      bit_equal(layer(x).value(), max_pool2d(x, {2, 3}, {.stride = 1, .padding = {1, 0}}).value()));
  EXPECT_TRUE(plain.named_parameters().empty());
}

TEST(MaxPool2d, refuses_options_outside_their_range) {
  EXPECT_TRUE(throws<OptionError>([] { MaxPool2d(0); }, "MaxPool2d", "kernel >= 1"));
  EXPECT_TRUE(throws<OptionError>([] { MaxPool2d(2, {.stride = 0}); }, "stride >= 1"));
  EXPECT_TRUE(throws<OptionError>([] { MaxPool2d(2, {.padding = 2}); }, "padding <= kernel / 2"));
}

TEST(Activations, are_the_operations_of_their_names) {
  const Variable x = uniform({40}, 1, -3, 3);
  EXPECT_TRUE(bit_equal(ReLU()(x).value(), relu(x).value()));
  EXPECT_TRUE(bit_equal(Tanh()(x).value(), tanh(x).value()));
  EXPECT_TRUE(bit_equal(Sigmoid()(x).value(), sigmoid(x).value()));
  EXPECT_TRUE(bit_equal(GELU()(x).value(), gelu(x).value()));
}

TEST(Unflatten, gives_samples_their_shape) {
  Tensor numbers = Tensor::empty({2, 12});
  fill_normal(numbers, RandomKey(1), 0, 1);
  const Variable x(numbers);
  const Variable y = Unflatten({3, 2, 2})(x);
  EXPECT_EQ(y.shape(), (Shape{2, 3, 2, 2}));
  EXPECT_TRUE(bit_equal(Flatten()(y).value(), x.value()));
  EXPECT_EQ(Unflatten({12})(y).shape(), (Shape{2, 12}));
  EXPECT_EQ(Unflatten({3, 4})(Tensor::zeros({0, 12})).shape(), (Shape{0, 3, 4}));
  EXPECT_TRUE(throws<ShapeError>([&] { Unflatten({5})(x); }, "Unflatten", "(5)", "(2, 12)"));
  EXPECT_THROW(Unflatten({1})(Tensor::zeros({})), ShapeError);
}

TEST(Flatten, keeps_the_first_axis) {
  EXPECT_EQ(Flatten()(Tensor::zeros({2, 3, 4})).shape(), (Shape{2, 12}));
  EXPECT_EQ(Flatten()(Tensor::zeros({5})).shape(), (Shape{5, 1}));
  EXPECT_EQ(Flatten()(Tensor::zeros({0, 3})).shape(), (Shape{0, 3}));
  EXPECT_THROW(Flatten()(Tensor::zeros({})), ShapeError);
}

class DropoutLayer : public ::testing::Test {
 protected:
  Tensor mask(Module& module) { return module(ones).value().clone(); }

  Tensor ones = Tensor::full({20, 500}, 1);
  Dropout layer{0.2};
};

TEST_F(DropoutLayer, keeps_the_mean_and_drops_the_right_share) {
  const Tensor y = mask(layer);
  double total = 0, dropped = 0;
  for (const float value : y.span<float>()) {
    EXPECT_TRUE(value == 0 || value == 1.25F) << value;
    total += value, dropped += value == 0;
  }
  const double n = 10'000;
  EXPECT_NEAR(dropped / n, 0.2, 5 * std::sqrt(0.16 / n));
  EXPECT_NEAR(total / n, 1, 5 * 1.25 * std::sqrt(0.16 / n));
}

TEST_F(DropoutLayer, draws_a_new_mask_each_call) {
  const Tensor first = mask(layer), second = mask(layer);
  EXPECT_FALSE(bit_equal(first, second));
  Dropout same(0.2);
  EXPECT_TRUE(bit_equal(mask(same), first));
  EXPECT_TRUE(bit_equal(mask(same), second));
}

TEST_F(DropoutLayer, draws_other_masks_on_another_stream_and_seed) {
  Dropout other_stream(0.2), other_seed(0.2);
  other_stream.set_random_stream(1);
  other_seed.initialize(3);
  const Tensor plain = mask(layer), streamed = mask(other_stream), seeded = mask(other_seed);
  EXPECT_FALSE(bit_equal(plain, streamed));
  EXPECT_FALSE(bit_equal(plain, seeded));
  other_seed.initialize(3);
  EXPECT_TRUE(bit_equal(mask(other_seed), seeded)) << "a seed begins at the first call again";
}

TEST_F(DropoutLayer, layers_of_a_model_have_masks_of_their_own) {
  Sequential model{Dropout(0.2), Dropout(0.2)};
  model.initialize(1);
  EXPECT_FALSE(bit_equal(mask(model[0]), mask(model[1])));
}

TEST_F(DropoutLayer, is_the_identity_in_evaluation_and_draws_nothing) {
  const Tensor first = mask(layer);
  layer.eval();
  EXPECT_TRUE(bit_equal(mask(layer), ones));
  layer.train();
  Dropout same(0.2);
  EXPECT_TRUE(bit_equal(mask(same), first));
  EXPECT_TRUE(bit_equal(mask(same), mask(layer)));
}

TEST_F(DropoutLayer, continues_after_restore_where_it_was_saved) {
  layer.initialize(4);
  layer.set_random_stream(2);
  mask(layer);
  const StateDict saved = layer.state_dict().clone();
  const Tensor next = mask(layer), after = mask(layer);
  Dropout resumed(0.2);
  resumed.set_random_stream(2);
  resumed.restore(saved);
  EXPECT_TRUE(bit_equal(mask(resumed), next));
  EXPECT_TRUE(bit_equal(mask(resumed), after));
  resumed.set_random_stream(3);
  resumed.restore(saved);
  EXPECT_FALSE(bit_equal(mask(resumed), next))
      << "the stream belongs to the rank, not to the state";
}

TEST_F(DropoutLayer, refuses_a_probability_outside_its_range) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double p : {1.0, -0.1, nan}) {
    EXPECT_TRUE(throws<OptionError>([&] { Dropout{p}; }, "Dropout", "0 <= p < 1"));
  }
  EXPECT_NO_THROW(Dropout(0));
}

TEST(Sequential, runs_its_modules_one_after_another) {
  Sequential model{Linear(3, 4), ReLU(), Linear(4, 2)};
  EXPECT_EQ(model.size(), 3U);
  const Variable x = uniform({5, 3}, 1, -1, 1, DType::f32);
  const Variable expected = model[2](relu(model[0](x)));
  EXPECT_TRUE(bit_equal(model(x).value(), expected.value()));
  EXPECT_TRUE(bit_equal(Sequential()(x).value(), x.value()));
}

TEST(Sequential, gives_its_modules_by_type) {
  Sequential model;
  model.append(Linear(3, 4));
  model.append(ReLU());
  EXPECT_EQ(model.at<Linear>(0).weight.shape(), (Shape{4, 3}));
  EXPECT_THROW(model.at<ReLU>(0), std::bad_cast);
  EXPECT_THROW(model.at<Linear>(2), std::out_of_range);
  EXPECT_THROW(model[2], std::out_of_range);
}

TEST(Sequential, copies_share_their_modules) {
  Sequential model{Linear(2, 2), Dropout(0.5)};
  Sequential copy = model;
  copy.at<Linear>(0).weight.mutable_value().fill(3);
  copy.eval();
  EXPECT_EQ(model.at<Linear>(0).weight.value().data<float>()[0], 3);
  EXPECT_FALSE(model[1].training());
  EXPECT_EQ(&model[0], &copy[0]);
}

TEST(Sequential, nests_and_names_by_position) {
  const Sequential inner{Linear(2, 2), ReLU()};
  const Sequential model{ReLU(), inner, Linear(2, 1, {.bias = false})};
  std::vector<std::string> names;
  for (const NamedParameter& named : model.named_parameters()) names.push_back(named.name);
  EXPECT_EQ(names, (std::vector<std::string>{"1.0.weight", "1.0.bias", "2.weight"}));
  EXPECT_EQ(model.named_parameters()[0].parameter, inner.named_parameters()[0].parameter);
}

TEST(Sequential, of_one_sequential_is_a_copy_of_it) {
  Sequential inner{Linear(2, 2), ReLU()};
  const Sequential copy{inner};
  EXPECT_EQ(copy.size(), 2U);
  Sequential wrapped;
  wrapped.append(inner);
  EXPECT_EQ(wrapped.size(), 1U);
}

}  // namespace layers_test
}  // namespace lockstep::nn
