#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "lockstep/autograd/convolution.hpp"
#include "lockstep/autograd/operations.hpp"
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

  void compare(const char* name, const Function& function) {
    SCOPED_TRACE(name);
    const json& expected = golden.at(name);
    std::vector<Tensor> inputs;
    for (const json& input : expected.at("inputs")) {
      inputs.push_back(
          tensor(input.at("data"), Shape(input.at("shape").get<std::vector<std::int64_t>>())));
    }
    const std::vector<Variable> leaves = testing::leaves(inputs, GetParam());
    const Variable result = function(leaves);
    const json& values = expected.at(std::string(to_string(GetParam())));
    expect_close(result.value(), values.at("value"), "value");
    const Tensor cotangent = tensor(expected.at("cotangent"), result.shape()).to(GetParam());
    sum(result * Variable(cotangent)).backward();
    for (std::size_t i = 0; i < leaves.size(); ++i) {
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
    const double tolerance = GetParam() == DType::f64 ? 1e-12 : 1e-6;
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

TEST_P(TorchValues, are_those_of_the_activations) {
  compare("relu", [](const auto& x) { return relu(x[0]); });
  compare("tanh", [](const auto& x) { return tanh(x[0]); });
  compare("sigmoid", [](const auto& x) { return sigmoid(x[0]); });
  compare("gelu", [](const auto& x) { return gelu(x[0]); });
}

TEST_P(TorchValues, are_those_of_the_losses) {
  compare("mean_squared_error", [](const auto& x) { return mean_squared_error(x[0], x[1]); });
  const auto labels = golden.at("cross_entropy").at("labels").get<std::vector<std::int64_t>>();
  const Tensor label = Tensor::from(labels, {static_cast<std::int64_t>(labels.size())});
  compare("cross_entropy", [&](const auto& x) { return cross_entropy(x[0], label); });
}

}  // namespace torch_values_test
}  // namespace lockstep
