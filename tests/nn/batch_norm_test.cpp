#include "lockstep/nn/batch_norm.hpp"

#include <cmath>
#include <cstdint>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/nn/layers.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/gradient_check.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::nn {
namespace batch_norm_test {

using nlohmann::json;
using testing::expect_near;
using testing::throws;
using testing::uniform;

// Values, gradients and running statistics that PyTorch computed, batch by batch, the last one in
// evaluation: golden/batch_norm.py.
class BatchNormOfTorch : public ::testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    std::ifstream file(LOCKSTEP_GOLDEN_DIR "/batch_norm.json");
    ASSERT_TRUE(file) << "golden/batch_norm.json is missing";
    golden = json::parse(file);
  }

  static Tensor tensor(const json& numbers, const Shape& shape) {
    return Tensor::from(numbers.get<std::vector<double>>(), shape);
  }

  void compare(const char* name, BatchNormOptions options = {}) {
    SCOPED_TRACE(name);
    const json& expected = golden.at(name);
    const Shape shape(expected.at("shape").get<std::vector<std::int64_t>>());
    const Shape channels{shape[1]};
    options.dtype = GetParam();
    BatchNorm layer(shape[1], options);
    if (options.affine) {
      layer.weight.mutable_value().copy_from(
          tensor(expected.at("weight"), channels).to(GetParam()));
      layer.bias.mutable_value().copy_from(tensor(expected.at("bias"), channels).to(GetParam()));
    }
    const json& batches = expected.at("batches");
    for (std::size_t batch = 0; batch < batches.size(); ++batch) {
      SCOPED_TRACE(batch);
      layer.train(batch + 1 < batches.size());
      layer.zero_grad();
      const Variable x(tensor(batches[batch].at("x"), shape).to(GetParam()), true);
      const Variable y = layer(x);
      sum(y * tensor(batches[batch].at("cotangent"), shape).to(GetParam())).backward();
      const json& values = expected.at(std::string(to_string(GetParam()))).at(batch);
      expect_close(y.value(), values.at("value"), "value");
      expect_close(x.grad(), values.at("gradients").at(0), "gradient of x");
      ASSERT_EQ(values.at("gradients").size(), options.affine ? 3U : 1U);
      if (options.affine) {
        expect_close(layer.weight.grad(), values.at("gradients").at(1), "gradient of weight");
        expect_close(layer.bias.grad(), values.at("gradients").at(2), "gradient of bias");
      }
      const auto buffers = layer.named_buffers();
      ASSERT_EQ(buffers.size(), values.at("buffers").size());
      for (const auto& [key, buffer] : buffers) {
        expect_close(buffer, values.at("buffers").at(key), key.c_str());
      }
    }
  }

  static void expect_close(const Tensor& found, const json& numbers, const char* what) {
    const double tolerance = GetParam() == DType::f64 ? 1e-13 : 2e-6;
    expect_near(found.to(DType::f64), tensor(numbers, found.shape()), tolerance, what);
  }

  json golden;
};
INSTANTIATE_TEST_SUITE_P(EachDType, BatchNormOfTorch, ::testing::Values(DType::f32, DType::f64));

TEST_P(BatchNormOfTorch, takes_vectors_sequences_and_images) {
  compare("vectors");
  compare("sequences", {.eps = 0.25, .momentum = 0.75});
  compare("images");
}

TEST_P(BatchNormOfTorch, averages_all_batches_without_a_momentum) {
  compare("cumulative", {.momentum = std::nullopt});
}

TEST_P(BatchNormOfTorch, does_without_weight_and_bias) { compare("not affine", {.affine = false}); }

TEST_P(BatchNormOfTorch, does_without_running_statistics) {
  compare("not tracked", {.track_running_stats = false});
}

// Weights and biases that are neither 1 nor 0, running statistics that are no batch's.
BatchNorm some_layer(std::int64_t channels, DType dtype) {
  BatchNorm layer(channels, {.dtype = dtype});
  layer.weight.mutable_value().copy_from(uniform({channels}, 1, 0.5, 2, dtype));
  layer.bias.mutable_value().copy_from(uniform({channels}, 2, -1, 1, dtype));
  layer.running_mean.copy_from(uniform({channels}, 3, -1, 1, dtype));
  layer.running_var.copy_from(uniform({channels}, 4, 0.5, 2, dtype));
  return layer;
}

TEST(BatchNorm, has_the_gradients_of_its_values) {
  for (const Shape& shape : {Shape{5, 3}, Shape{2, 3, 2, 2}, Shape{2, 3, 19}}) {
    for (const bool training : {true, false}) {
      SCOPED_TRACE(to_string(shape) + (training ? " in training" : " in evaluation"));
      testing::check_gradients(
          [training](const std::vector<Variable>& x) {
            BatchNorm layer = some_layer(3, x[0].dtype());
            layer.train(training);
            return layer(x[0]);
          },
          {uniform(shape, 5)});

      BatchNorm layer = some_layer(3, DType::f64);
      layer.train(training);
      const Tensor x = uniform(shape, 5);
      testing::weighted_sum(layer(x)).backward();
      for (Parameter& parameter : layer.parameters()) {
        Tensor numeric = Tensor::empty({3}, DType::f64);
        for (std::int64_t i = 0; i < 3; ++i) {
          constexpr double step = 1e-5;
          double& number = parameter.mutable_value().data<double>()[i];
          const auto value = [&](double at) {
            number = at;
            return testing::weighted_sum(layer(x)).value().item();
          };
          const double before = number;
          numeric.data<double>()[i] = (value(before + step) - value(before - step)) / (2 * step);
          number = before;
        }
        expect_near(parameter.grad(), numeric, 1e-8, "parameter");
      }
    }
  }
}

TEST(BatchNorm, adds_to_gradients_that_there_are) {
  BatchNorm layer = some_layer(3, DType::f64);
  const Tensor x = uniform({4, 3}, 5);
  testing::weighted_sum(layer(x)).backward();
  const Tensor once = layer.weight.grad().clone(), bias_once = layer.bias.grad().clone();
  testing::weighted_sum(layer(x)).backward();
  expect_near((Variable(layer.weight.grad()) / 2.0).value(), once, 1e-15, "weight");
  expect_near((Variable(layer.bias.grad()) / 2.0).value(), bias_once, 1e-15, "bias");
}

TEST(BatchNorm, loses_nothing_to_a_large_mean) {
  // Multiples of 1/256 around 4099, which are exact in both precisions.
  const auto layer_value = [](const Tensor& x, BatchNorm layer) {
    const Variable leaf(x, true);
    const Variable y = layer(leaf);
    testing::weighted_sum(y).backward();
    return std::vector<Tensor>{y.value(), leaf.grad(), layer.weight.grad()};
  };
  for (const Shape& shape : {Shape{50, 2}, Shape{2, 2, 5, 5}}) {
    Tensor x = uniform(shape, 1);
    for (double& value : x.span<double>()) value = 4099 + std::round(256 * value) / 256;
    const auto exact = layer_value(x, BatchNorm(2, {.dtype = DType::f64}));
    const auto found = layer_value(x.to(DType::f32), BatchNorm(2));
    expect_near(found[0], exact[0], 1e-6, "value");
    expect_near(found[1], exact[1], 1e-6, "gradient of x");
    expect_near(found[2], exact[2], 1e-6, "gradient of weight");
  }
}

TEST(BatchNorm, starts_as_in_pytorch_and_initialize_restores_that) {
  BatchNorm layer(3);
  EXPECT_EQ(layer.weight.dtype(), DType::f32);
  const StateDict start = layer.state_dict().clone();
  EXPECT_EQ(start.size(), 5U);
  EXPECT_TRUE(bit_equal(start.at("weight").as_tensor(), Tensor::full({3}, 1)));
  EXPECT_TRUE(bit_equal(start.at("bias").as_tensor(), Tensor::zeros({3})));
  EXPECT_TRUE(bit_equal(start.at("running_mean").as_tensor(), Tensor::zeros({3})));
  EXPECT_TRUE(bit_equal(start.at("running_var").as_tensor(), Tensor::full({3}, 1)));
  EXPECT_TRUE(
      bit_equal(start.at("num_batches_tracked").as_tensor(), Tensor::zeros({}, DType::i64)));

  layer.weight.mutable_value().fill(7);
  layer.bias.mutable_value().fill(7);
  layer(uniform({4, 3}, 1, -1, 1, DType::f32));
  EXPECT_EQ(layer.num_batches_tracked.item(), 1);
  layer.initialize(5);
  EXPECT_EQ(layer.num_batches_tracked.item(), 1);
  layer.reset_running_stats();
  EXPECT_TRUE(bit_equal(layer.state_dict(), start));

  BatchNorm bare(3, {.affine = false, .track_running_stats = false});
  EXPECT_TRUE(bare.state_dict().empty());
  EXPECT_NO_THROW(bare.initialize(5));
  EXPECT_NO_THROW(bare.reset_running_stats());
}

TEST(BatchNorm, goes_on_from_a_state_dict) {
  const auto model = [] {
    return Sequential{Linear(2, 3), BatchNorm(3, {.momentum = std::nullopt}), ReLU()};
  };
  Sequential source = model(), target = model();
  source.initialize(1);
  const Tensor x = uniform({5, 2}, 1, -1, 1, DType::f32),
               other = uniform({5, 2}, 2, -1, 1, DType::f32);
  source(x);
  target(other);
  const StateDict saved = source.state_dict().clone();
  EXPECT_TRUE(saved.contains("1.running_mean"));
  EXPECT_TRUE(saved.contains("1.num_batches_tracked"));
  target.restore(saved);
  EXPECT_TRUE(bit_equal(target.state_dict(), saved));
  source(other), target(other);
  EXPECT_TRUE(bit_equal(target.state_dict(), source.state_dict()));
  EXPECT_EQ(target.at<BatchNorm>(1).num_batches_tracked.item(), 2);
  source.eval(), target.eval();
  EXPECT_TRUE(bit_equal(target(x).value(), source(x).value()));
}

TEST(BatchNorm, tracks_in_training_alone) {
  BatchNorm layer(3);
  const Tensor x = uniform({4, 3}, 1, -1, 1, DType::f32);
  {
    const NoGrad guard;
    layer(x);
  }
  EXPECT_EQ(layer.num_batches_tracked.item(), 1);
  const StateDict before = layer.state_dict().clone();
  layer.eval();
  layer(x);
  EXPECT_EQ(layer(Tensor::zeros({0, 3})).shape(), (Shape{0, 3}));
  EXPECT_TRUE(bit_equal(layer.state_dict(), before));
}

TEST(BatchNorm, copies_share_parameters_and_statistics) {
  BatchNorm layer(3), copy = layer;
  copy(uniform({4, 3}, 1, -1, 1, DType::f32));
  EXPECT_EQ(layer.weight, copy.weight);
  EXPECT_EQ(layer.num_batches_tracked.item(), 1);
  EXPECT_NE(layer.running_mean.data<float>()[0], 0);
}

TEST(BatchNorm, differentiates_by_the_statistics_of_its_forward) {
  BatchNorm layer = some_layer(3, DType::f64), same = some_layer(3, DType::f64);
  layer.eval(), same.eval();
  const Variable x(uniform({4, 3}, 5), true), y(uniform({4, 3}, 5), true);
  const Variable loss = testing::weighted_sum(layer(x));
  layer.reset_running_stats();
  loss.backward();
  testing::weighted_sum(same(y)).backward();
  EXPECT_TRUE(bit_equal(x.grad(), y.grad()));
  EXPECT_TRUE(bit_equal(layer.weight.grad(), same.weight.grad()));
}

TEST(BatchNorm, is_not_passed_over_between_a_convolution_and_its_activation) {
  Conv2d convolution(2, 3, 2);
  BatchNorm norm(3);
  Sequential model{convolution, norm, ReLU()};
  const Tensor x = uniform({2, 2, 4, 4}, 1, -1, 1, DType::f32);
  const Tensor found = model(x).value();
  EXPECT_EQ(norm.num_batches_tracked.item(), 1);
  EXPECT_TRUE(bit_equal(found, relu(norm(convolution(x))).value()));
  sum(model(x)).backward();
  for (const Parameter& parameter : model.parameters()) EXPECT_TRUE(parameter.has_grad());
}

TEST(BatchNorm, refuses_what_does_not_fit) {
  BatchNorm layer(3);
  const StateDict before = layer.state_dict().clone();
  EXPECT_TRUE(throws<ShapeError>([&] { layer(Tensor::zeros({4, 2})); }, "(n, 3, ...)", "(4, 2)"));
  EXPECT_TRUE(throws<ShapeError>([&] { layer(Tensor::zeros({3})); }, "(n, 3, ...)", "(3)"));
  EXPECT_TRUE(throws<DTypeError>([&] { layer(Tensor::zeros({4, 3}, DType::f64)); }, "f32", "f64"));
  for (const Shape& shape : {Shape{1, 3}, Shape{1, 3, 1, 1}, Shape{0, 3}, Shape{4, 3, 0}}) {
    EXPECT_TRUE(throws<StateError>([&] { layer(Tensor::zeros(shape)); },
                                   "expected more than 1 value per channel when training",
                                   to_string(shape)));
  }
  EXPECT_TRUE(bit_equal(layer.state_dict(), before));
  layer.eval();
  EXPECT_NO_THROW(layer(Tensor::zeros({1, 3})));
  BatchNorm untracked(3, {.track_running_stats = false});
  untracked.eval();
  EXPECT_TRUE(throws<StateError>(
      [&] {
        untracked(Tensor::zeros({1, 3}));
      },
      "without running statistics"));
}

TEST(BatchNorm, refuses_options_outside_their_ranges) {
  const double nan = std::nan("");
  EXPECT_TRUE(throws<OptionError>([] { BatchNorm(0); }, "channels >= 1", "found 0"));
  for (const double eps : {0.0, -1.0, nan, double{INFINITY}}) {
    EXPECT_TRUE(throws<OptionError>([&] { BatchNorm(1, {.eps = eps}); }, "eps > 0"));
  }
  for (const double momentum : {-0.5, 1.5, nan}) {
    EXPECT_TRUE(
        throws<OptionError>([&] { BatchNorm(1, {.momentum = momentum}); }, "momentum <= 1"));
  }
  EXPECT_NO_THROW(BatchNorm(1, {.momentum = 0.0}));
  EXPECT_NO_THROW(BatchNorm(1, {.momentum = 1.0}));
  EXPECT_TRUE(throws<DTypeError>([] { BatchNorm(1, {.affine = false, .dtype = DType::i64}); },
                                 "f32 or f64", "i64"));
}

}  // namespace batch_norm_test
}  // namespace lockstep::nn
