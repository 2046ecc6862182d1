#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "lockstep/autograd/activations.hpp"
#include "lockstep/autograd/attention.hpp"
#include "lockstep/autograd/convolution.hpp"
#include "lockstep/autograd/losses.hpp"
#include "lockstep/autograd/normalization.hpp"
#include "lockstep/autograd/operations.hpp"
#include "lockstep/autograd/pooling.hpp"
#include "lockstep/nn/attention.hpp"
#include "lockstep/nn/recurrent.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/gradient_check.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace torch_values_test {

using nlohmann::json;
using testing::Function;

// Values and gradients that PyTorch computed: golden/layers.py.
class TorchValues : public ::testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    std::ifstream file(LOCKSTEP_GOLDEN_DIR "/layers.json");
    ASSERT_TRUE(file) << "golden/layers.json is missing";
    golden = json::parse(file);
  }

  static Tensor tensor(const json& numbers, const Shape& shape) {
    return Tensor::from(numbers.get<std::vector<double>>(), shape);
  }

  std::vector<Tensor> inputs_of(const json& expected) {
    std::vector<Tensor> inputs;
    for (const json& input : expected.at("inputs")) {
      inputs.push_back(
          tensor(input.at("data"), Shape(input.at("shape").get<std::vector<std::int64_t>>())));
    }
    return inputs;
  }

  void compare(const char* name, const Function& function) {
    SCOPED_TRACE(name);
    const std::vector<Variable> leaves = testing::leaves(inputs_of(golden.at(name)), GetParam());
    compare_result(golden.at(name), function(leaves), leaves);
  }

  // The inputs after the first one are the parameters, in order.
  void compare_module(const char* name, nn::Module& module) {
    SCOPED_TRACE(name);
    const std::vector<Tensor> inputs = inputs_of(golden.at(name));
    std::vector<Parameter> parameters = module.parameters();
    ASSERT_EQ(parameters.size() + 1, inputs.size());
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      parameters[i].mutable_value().copy_from(inputs[i + 1].to(GetParam()));
    }
    std::vector<Variable> leaves{Variable(inputs[0].to(GetParam()), true)};
    leaves.insert(leaves.end(), parameters.begin(), parameters.end());
    compare_result(golden.at(name), module(leaves[0]), leaves);
  }

  void compare_result(const json& expected, const Variable& result,
                      const std::vector<Variable>& leaves) {
    const json& values = expected.at(std::string(to_string(GetParam())));
    expect_close(result.value(), values.at("value"), "value");
    const Tensor cotangent = tensor(expected.at("cotangent"), result.shape()).to(GetParam());
    sum(result * Variable(cotangent)).backward();
    for (std::size_t i = 0; i < leaves.size(); ++i) {
      SCOPED_TRACE(i);
      expect_close(leaves[i].grad(), values.at("gradients").at(i), "gradient");
    }
  }

  // Relative to the largest element: gelu cancels where it is small, in PyTorch as here.
  void expect_close(const Tensor& found, const json& numbers, const char* what) {
    const Tensor expected = tensor(numbers, found.shape());
    double largest = 0;
    for (const double value : expected.span<double>()) largest = std::max(largest, std::abs(value));
    ASSERT_GT(largest, 0);
    const Tensor actual = found.to(DType::f64);
    const double tolerance = GetParam() == DType::f64 ? 1e-12 : 3e-6;
    for (std::int64_t i = 0; i < actual.size(); ++i) {
      EXPECT_NEAR(actual.data<double>()[i], expected.data<double>()[i], tolerance * largest)
          << what << ", element " << i;
    }
  }

  json golden;
};
INSTANTIATE_TEST_SUITE_P(EachDType, TorchValues, ::testing::Values(DType::f32, DType::f64));

TEST_P(TorchValues, are_those_of_linear) {
  compare("linear", [](const auto& x) { return linear(x[0], x[1], x[2]); });
}

TEST_P(TorchValues, are_those_of_convolution_and_pooling) {
  compare("conv2d", [](const auto& x) {
    return conv2d(x[0], x[1], x[2], {.stride = {2, 1}, .padding = {1, 2}});
  });
  compare("max_pool2d", [](const auto& x) {
    return max_pool2d(x[0], {3, 2}, {.stride = Size2d(2, 1), .padding = {1, 0}});
  });
}

TEST_P(TorchValues, are_those_of_convolutions_of_other_kinds) {
  compare("conv2d_groups", [](const auto& x) {
    return conv2d(x[0], x[1], x[2],
                  {.stride = {1, 2}, .padding = {2, 1}, .dilation = {2, 1}, .groups = 2});
  });
  compare("conv1d", [](const auto& x) {
    return conv1d(x[0], x[1], x[2], {.stride = 2, .padding = 1, .dilation = 2});
  });
  compare("conv3d", [](const auto& x) {
    return conv3d(x[0], x[1], x[2],
                  {.stride = {1, 2, 1}, .padding = {1, 0, 1}, .dilation = {1, 1, 2}});
  });
  compare("conv_transpose1d", [](const auto& x) {
    return conv_transpose1d(x[0], x[1], x[2], {.stride = 3, .padding = 1, .output_padding = 2});
  });
  compare("conv_transpose2d", [](const auto& x) {
    return conv_transpose2d(x[0], x[1], x[2],
                            {.stride = {2, 1},
                             .padding = {1, 0},
                             .dilation = {1, 2},
                             .groups = 2,
                             .output_padding = {1, 0}});
  });
  compare("conv_transpose3d", [](const auto& x) {
    return conv_transpose3d(x[0], x[1], x[2], {.stride = {1, 2, 2}, .padding = {0, 1, 0}});
  });
}

TEST_P(TorchValues, are_those_of_pooling_of_other_kinds) {
  compare("max_pool1d",
          [](const auto& x) { return max_pool1d(x[0], 3, {.stride = 2, .padding = 1}); });
  compare("max_pool3d", [](const auto& x) {
    return max_pool3d(x[0], {2, 2, 3}, {.stride = Size3d(1, 2, 2), .padding = {0, 1, 1}});
  });
  compare("avg_pool1d",
          [](const auto& x) { return avg_pool1d(x[0], 3, {.stride = 2, .padding = 1}); });
  compare("avg_pool2d", [](const auto& x) {
    return avg_pool2d(x[0], {3, 2},
                      {.stride = Size2d(2, 1), .padding = 1, .count_include_pad = false});
  });
  compare("avg_pool3d", [](const auto& x) {
    return avg_pool3d(x[0], 2, {.stride = Size3d(1, 2, 2), .padding = {0, 1, 0}});
  });
  compare("global_avg_pool", [](const auto& x) { return global_avg_pool(x[0]); });
}

TEST_P(TorchValues, are_those_of_normalization) {
  compare("layer_norm", [](const auto& x) { return layer_norm(x[0], {3, 4}, x[1], x[2], 1e-3); });
  compare("group_norm", [](const auto& x) { return group_norm(x[0], 2, x[1], x[2], 1e-3); });
}

TEST_P(TorchValues, are_those_of_recurrent_layers) {
  const nn::RecurrentOptions one{.dtype = GetParam()},
      deep{.layers = 2, .bidirectional = true, .dtype = GetParam()};
  nn::LSTM lstm(3, 4, one), deep_lstm(3, 2, deep);
  compare_module("lstm", lstm);
  compare_module("lstm_deep", deep_lstm);
  nn::GRU gru(3, 4, one), deep_gru(3, 2, deep);
  compare_module("gru", gru);
  compare_module("gru_deep", deep_gru);
}

TEST_P(TorchValues, are_those_of_attention) {
  compare("causal_attention",
          [](const auto& x) { return attention(x[0], x[1], x[2], {.heads = 2, .causal = true}); });
  nn::TransformerEncoderLayer layer(4, 2, {.feedforward = 6, .dropout = 0, .dtype = GetParam()});
  compare_module("transformer", layer);
  nn::TransformerEncoderLayer first(
      4, 2,
      {.feedforward = 6, .dropout = 0, .gelu = true, .norm_first = true, .dtype = GetParam()});
  compare_module("transformer_norm_first", first);
}

TEST_P(TorchValues, are_those_of_the_activations) {
  compare("relu", [](const auto& x) { return relu(x[0]); });
  compare("tanh", [](const auto& x) { return tanh(x[0]); });
  compare("sigmoid", [](const auto& x) { return sigmoid(x[0]); });
  compare("gelu", [](const auto& x) { return gelu(x[0]); });
  compare("silu", [](const auto& x) { return silu(x[0]); });
  compare("softplus", [](const auto& x) { return softplus(x[0]); });
  compare("softplus_beta", [](const auto& x) { return softplus(x[0], 2.5); });
  compare("leaky_relu", [](const auto& x) { return leaky_relu(x[0]); });
  compare("leaky_relu_slope", [](const auto& x) { return leaky_relu(x[0], 0.3); });
  compare("elu", [](const auto& x) { return elu(x[0]); });
  compare("elu_alpha", [](const auto& x) { return elu(x[0], 0.7); });
  compare("softmax", [](const auto& x) { return softmax(x[0]); });
  compare("log_softmax", [](const auto& x) { return log_softmax(x[0]); });
}

TEST_P(TorchValues, are_those_of_the_losses) {
  compare("mean_squared_error", [](const auto& x) { return mean_squared_error(x[0], x[1]); });
  const auto labels = golden.at("cross_entropy").at("labels").get<std::vector<std::int64_t>>();
  const Tensor label = Tensor::from(labels, {static_cast<std::int64_t>(labels.size())});
  compare("cross_entropy", [&](const auto& x) { return cross_entropy(x[0], label); });
  compare("nll_loss", [&](const auto& x) { return nll_loss(x[0], label); });
  compare("l1_loss", [](const auto& x) { return l1_loss(x[0], x[1]); });
  compare("huber_loss", [](const auto& x) { return huber_loss(x[0], x[1]); });
  compare("huber_loss_delta", [](const auto& x) { return huber_loss(x[0], x[1], 0.5); });
  compare("kl_divergence", [](const auto& x) { return kl_divergence(x[0], x[1]); });
  compare("binary_cross_entropy", [](const auto& x) { return binary_cross_entropy(x[0], x[1]); });
}

}  // namespace torch_values_test
}  // namespace lockstep
