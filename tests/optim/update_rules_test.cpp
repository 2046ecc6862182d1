#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/parallel/gradient_reducer.hpp"
#include "lockstep/tensor/random.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "optim/default_rules.hpp"
#include "optim/small_parameters.hpp"

LOCKSTEP_TEST_RANKS(1, 2);

namespace lockstep {
namespace update_rules_test {

using nlohmann::json;
using testing::drawn;

// All of this as in golden/trajectory.py.
const std::vector<Shape> shapes{{2, 3}, {4}, {9}, {1}, {2}};
constexpr int steps = 26;
const std::vector<int> values_after{1, 5, 12};

std::vector<NamedParameter> make_parameters(DType dtype) {
  std::vector<NamedParameter> parameters;
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    Tensor value = drawn(1000000 + i, shapes[i], dtype);
    if (i == 4) value.fill(0);
    parameters.emplace_back(std::to_string(i), Parameter(std::move(value)));
  }
  return parameters;
}

bool frozen(int step, std::size_t i) {
  return (i == 1 && step >= 8 && step <= 12) || (i == 4 && step < 5);
}

// A frozen parameter gets a gradient as well, which the optimizer must not use.
void prepare_step(std::vector<NamedParameter>& parameters, int step) {
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    Parameter& parameter = parameters[i].parameter;
    parameter.set_requires_grad(!frozen(step, i));
    parameter.zero_grad();
    if ((3 * static_cast<std::size_t>(step) + i) % 7 == 2) continue;
    const auto key = 100 * static_cast<std::uint64_t>(step) + i;
    Tensor gradient = drawn(key, parameter.shape(), parameter.dtype());
    if (i == 0) gradient.reshape({6}).window(step % 6, {1}).fill(0);
    if (i == 1 && step == 15) gradient.fill(0);
    parameter.mutable_grad().copy_from(gradient);
  }
}

StateDict fields_of(const json& options) {
  StateDict fields;
  for (const auto& [name, value] : options.items()) {
    if (value.is_boolean()) {
      fields[name] = value.get<bool>();
    } else {
      fields[name] = value.get<double>();
    }
  }
  return fields;
}

NamedOptimizer make_optimizer(const std::vector<NamedParameter>& parameters, const json& test) {
  const auto members = [&parameters](std::ptrdiff_t first, std::ptrdiff_t last) {
    return std::vector(parameters.begin() + first, parameters.begin() + last);
  };
  const auto rule =
      testing::make_rule(test.at("rule").get<std::string>(), fields_of(test.at("options")));
  json second = test.at("second");
  const double lr = second.at("lr");
  second.erase("lr");
  return NamedOptimizer(parameters, *rule,
                        {{.params = members(0, 2)},
                         {.params = members(2, 5), .lr = lr, .fields = fields_of(second)}});
}

using Tensors = std::map<std::string, Tensor>;

void add_values(Tensors& tensors, const std::string& when,
                const std::vector<NamedParameter>& parameters) {
  for (const auto& [name, parameter] : parameters) {
    tensors[when + "/" + name + "/value"] = parameter.value().clone();
  }
}

Tensor as_tensor(const StateValue& value) {
  if (const auto* count = std::get_if<std::int64_t>(&value.variant())) {
    return Tensor::full({1}, static_cast<double>(*count), DType::f64);
  }
  if (const auto* number = std::get_if<double>(&value.variant())) {
    return Tensor::full({1}, *number, DType::f64);
  }
  return value.as_tensor().clone();
}

// Values after some steps and at the end, and the state there: "5/0/value", "end/0/exp_avg".
Tensors train(std::vector<NamedParameter>& parameters, const json& test) {
  NamedOptimizer optimizer = make_optimizer(parameters, test);
  Tensors tensors;
  for (int step = 0; step < steps; ++step) {
    prepare_step(parameters, step);
    optimizer.step();
    if (std::find(values_after.begin(), values_after.end(), step + 1) != values_after.end()) {
      add_values(tensors, std::to_string(step + 1), parameters);
    }
  }
  add_values(tensors, "end", parameters);
  const StateDict saved = optimizer.state_dict();
  for (const auto& [name, slots] : saved.at("state").as_dict()) {
    for (const auto& [slot, value] : slots.as_dict()) {
      tensors["end/" + name + "/" + slot] = as_tensor(value);
    }
  }
  return tensors;
}

std::map<std::string, std::vector<double>> expected_numbers(const json& test) {
  std::map<std::string, std::vector<double>> expected;
  for (const auto& [when, values] : test.at("values").items()) {
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      values.at(i).get_to(expected[when + "/" + std::to_string(i) + "/value"]);
    }
  }
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    for (const auto& [slot, numbers] : test.at("state").at(i).items()) {
      numbers.get_to(expected["end/" + std::to_string(i) + "/" + slot]);
    }
  }
  return expected;
}

// The largest deviation, relative to the largest number.
double relative_error(const Tensor& found, const std::vector<double>& expected) {
  const Tensor wide = found.to(DType::f64);
  double largest = 0, error = 0;
  for (std::size_t k = 0; k < expected.size(); ++k) {
    largest = std::max(largest, std::abs(expected[k]));
    error = std::max(error, std::abs(wide.data<double>()[k] - expected[k]));
  }
  return error == 0 ? 0 : error / largest;
}

class UpdateRules : public ::testing::TestWithParam<const char*> {
 protected:
  UpdateRules() {
    std::ifstream file(std::string(LOCKSTEP_GOLDEN_DIR "/") + GetParam());
    golden_ = json::parse(file);
  }

  static std::string title(const json& test) {
    return test.at("rule").dump() + test.at("options").dump() + test.at("second").dump() +
           test.at("dtype").dump();
  }
  static DType dtype_of(const json& test) {
    return test.at("dtype") == "f32" ? DType::f32 : DType::f64;
  }

  json golden_;
};

// Rprop and Lion need no wider bounds: the gradients do not depend on the values here, so that none
// comes out with another sign.
TEST_P(UpdateRules, follow_the_reference_with_absent_gradients_and_frozen_parameters) {
  for (const json& test : golden_) {
    SCOPED_TRACE(title(test));
    const DType dtype = dtype_of(test);
    std::vector<NamedParameter> parameters = make_parameters(dtype);
    const Tensors found = train(parameters, test);
    const auto expected = expected_numbers(test);
    for (const auto& [name, numbers] : expected) {
      ASSERT_TRUE(found.contains(name)) << name;
      ASSERT_EQ(found.at(name).size(), static_cast<std::int64_t>(numbers.size())) << name;
      EXPECT_LE(relative_error(found.at(name), numbers), dtype == DType::f32 ? 1e-6 : 1e-12)
          << name;
    }
    EXPECT_EQ(found.size(), expected.size());
  }
}

TEST_P(UpdateRules, give_the_same_bits_in_a_flat_layout) {
  for (const json& test : golden_) {
    SCOPED_TRACE(title(test));
    std::vector<NamedParameter> separate = make_parameters(dtype_of(test));
    std::vector<NamedParameter> flat = make_parameters(dtype_of(test));
    const GradientReducer reducer(flat, testing::world());
    const Tensors expected = train(separate, test);
    const Tensors found = train(flat, test);
    ASSERT_EQ(expected.size(), found.size());
    for (const auto& [name, tensor] : expected) {
      EXPECT_TRUE(bit_equal(tensor, found.at(name))) << name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, UpdateRules,
                         ::testing::Values("update_rules.json", "large_batch_rules.json"),
                         [](const auto& info) {
                           const std::string file = info.param;
                           return file.substr(0, file.find('.'));
                         });

TEST(UpdateRuleCases, cover_every_field_of_every_rule) {
  std::map<std::string, StateDict> varied;
  for (const char* name : {"/update_rules.json", "/large_batch_rules.json"}) {
    std::ifstream file(LOCKSTEP_GOLDEN_DIR + std::string(name));
    for (const json& test : json::parse(file)) {
      StateDict& fields = varied[test.at("rule").get<std::string>()];
      for (const char* part : {"options", "second"}) {
        for (const auto& [field, value] : fields_of(test.at(part))) fields[field] = value;
      }
    }
  }
  for (const auto& rule : testing::default_rules()) {
    for (const auto& [field, value] : rule->options()) {
      EXPECT_TRUE(varied[std::string(rule->name())].contains(field))
          << rule->name() << ' ' << field;
    }
  }
}

}  // namespace update_rules_test
}  // namespace lockstep
