#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/parallel/gradient_reducer.hpp"
#include "lockstep/tensor/random.hpp"
#include "testing/mpi_test.hpp"

LOCKSTEP_TEST_RANKS(1, 2);

namespace lockstep {

using nlohmann::json;

// As in golden/update_rules.py.
const std::vector<Shape> shapes{{3, 5}, {7}, {33}, {1}};
constexpr int steps = 20;

std::unique_ptr<optim::UpdateRule> make_rule(const json& test) {
  std::unique_ptr<optim::UpdateRule> rule;
  if (test.at("rule") == "SGD") rule = std::make_unique<optim::SGD>();
  if (test.at("rule") == "Adam") rule = std::make_unique<optim::Adam>();
  if (test.at("rule") == "AdamW") rule = std::make_unique<optim::AdamW>();
  StateDict options;
  for (const auto& [name, value] : test.at("options").items()) {
    if (value.is_boolean()) {
      options[name] = value.get<bool>();
    } else {
      options[name] = value.get<double>();
    }
  }
  rule->set(options);
  return rule;
}

Tensor drawn(std::uint64_t key, const Shape& shape, DType dtype) {
  Tensor tensor = Tensor::empty(shape, dtype);
  fill_uniform(tensor, RandomKey(key), -1, 1);
  return tensor;
}

std::vector<NamedParameter> make_parameters(DType dtype) {
  std::vector<NamedParameter> parameters;
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    parameters.emplace_back(std::to_string(i), Parameter(drawn(1000000 + i, shapes[i], dtype)));
  }
  return parameters;
}

void set_gradients(std::vector<NamedParameter>& parameters, int step) {
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    Parameter& parameter = parameters[i].parameter;
    parameter.zero_grad();
    if ((3 * static_cast<std::size_t>(step) + i) % 7 == 2) continue;
    const auto key = 100 * static_cast<std::uint64_t>(step) + i;
    parameter.mutable_grad().copy_from(drawn(key, parameter.shape(), parameter.dtype()));
  }
}

// Values, and state, as "0/value", "0/exp_avg", …
std::map<std::string, Tensor> results(const std::vector<NamedParameter>& parameters,
                                      const NamedOptimizer& optimizer) {
  std::map<std::string, Tensor> tensors;
  const StateDict saved = optimizer.state_dict();
  for (const auto& [name, slots] : saved.at("state").as_dict()) {
    for (const auto& [slot, value] : slots.as_dict()) {
      tensors[name + "/" + slot] = slot == "step"
                                       ? Tensor::full({1}, static_cast<double>(value.as_int()))
                                       : value.as_tensor().clone();
    }
  }
  for (const auto& [name, parameter] : parameters) {
    tensors[name + "/value"] = parameter.value().clone();
  }
  return tensors;
}

std::map<std::string, Tensor> train(std::vector<NamedParameter>& parameters,
                                    const optim::UpdateRule& rule) {
  NamedOptimizer optimizer(parameters, rule);
  for (int step = 0; step < steps; ++step) {
    set_gradients(parameters, step);
    optimizer.step();
  }
  return results(parameters, optimizer);
}

DType dtype_of_case(const json& test) {
  return test.at("dtype") == "f32" ? DType::f32 : DType::f64;
}

class UpdateRules : public ::testing::Test {
 protected:
  UpdateRules() {
    std::ifstream file(LOCKSTEP_GOLDEN_DIR "/update_rules.json");
    golden_ = json::parse(file);
  }

  json golden_;
};

TEST_F(UpdateRules, follow_torch_over_steps_with_absent_gradients) {
  for (const json& test : golden_) {
    SCOPED_TRACE(test.at("rule").dump() + test.at("options").dump() + test.at("dtype").dump());
    const DType dtype = dtype_of_case(test);
    std::vector<NamedParameter> parameters = make_parameters(dtype);
    const std::map<std::string, Tensor> found = train(parameters, *make_rule(test));
    std::size_t compared = 0;
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      for (const auto& [slot, numbers] : test.at("tensors").at(i).items()) {
        const auto expected = numbers.get<std::vector<double>>();
        const std::string name = std::to_string(i) + "/" + slot;
        ASSERT_TRUE(found.contains(name)) << name;
        const Tensor tensor = found.at(name).to(DType::f64);
        ASSERT_EQ(tensor.size(), static_cast<std::int64_t>(expected.size())) << name;
        double largest = 0, error = 0;
        for (std::size_t k = 0; k < expected.size(); ++k) {
          largest = std::max(largest, std::abs(expected[k]));
          error = std::max(error, std::abs(tensor.data<double>()[k] - expected[k]));
        }
        EXPECT_LE(error, (dtype == DType::f32 ? 1e-6 : 1e-12) * largest) << name;
        ++compared;
      }
    }
    EXPECT_EQ(compared, found.size());
  }
}

TEST_F(UpdateRules, give_the_same_bits_in_a_flat_layout) {
  for (const json& test : golden_) {
    SCOPED_TRACE(test.at("rule").dump() + test.at("options").dump() + test.at("dtype").dump());
    std::vector<NamedParameter> separate = make_parameters(dtype_of_case(test));
    std::vector<NamedParameter> flat = make_parameters(dtype_of_case(test));
    const GradientReducer reducer(flat, testing::world());
    const auto expected = train(separate, *make_rule(test));
    const auto found = train(flat, *make_rule(test));
    ASSERT_EQ(expected.size(), found.size());
    for (const auto& [name, tensor] : expected) {
      EXPECT_TRUE(bit_equal(tensor, found.at(name))) << name;
    }
  }
}

// Message of the OptionError that `make` throws.
template <class Make>
std::string refusal(const Make& make) {
  try {
    make();
  } catch (const OptionError& error) {
    return error.what();
  }
  return "nothing was refused";
}

TEST_F(UpdateRules, refuse_options_outside_their_range_by_name) {
  using optim::Adam, optim::AdamW, optim::SGD;
  const double nan = std::nan(""), inf = HUGE_VAL;
  const std::vector<std::pair<std::string, std::string>> refusals{
      {refusal([] { SGD({.lr = -1}); }), "SGD: expected lr >= 0, found -1"},
      {refusal([&] { SGD({.lr = nan}); }), "SGD: expected lr >= 0, found nan"},
      {refusal([&] { SGD({.lr = inf}); }), "SGD: expected lr >= 0, found inf"},
      {refusal([] { SGD({.momentum = -0.5}); }), "SGD: expected momentum >= 0, found -0.5"},
      {refusal([&] { SGD({.dampening = nan}); }), "SGD: expected dampening >= 0, found nan"},
      {refusal([] { SGD({.weight_decay = -2}); }), "SGD: expected weight_decay >= 0, found -2"},
      {refusal([] { SGD({.nesterov = true}); }),
       "SGD: expected momentum > 0 with nesterov, found 0"},
      {refusal([] { SGD({.momentum = 0.9, .dampening = 0.1, .nesterov = true}); }),
       "SGD: expected dampening = 0 with nesterov, found 0.1"},
      {refusal([] { Adam({.lr = -1}); }), "Adam: expected lr >= 0, found -1"},
      {refusal([] { Adam({.beta1 = 1}); }), "Adam: expected 0 <= beta1 < 1, found 1"},
      {refusal([] { Adam({.beta2 = -0.1}); }), "Adam: expected 0 <= beta2 < 1, found -0.1"},
      {refusal([] { Adam({.eps = 0}); }), "Adam: expected eps > 0, found 0"},
      {refusal([&] { AdamW({.weight_decay = inf}); }),
       "AdamW: expected weight_decay >= 0, found inf"},
  };
  for (const auto& [found, expected] : refusals) EXPECT_EQ(found, expected);
}

}  // namespace lockstep
