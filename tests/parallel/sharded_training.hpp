#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "lockstep/optim/keyed_optimizer.hpp"
#include "lockstep/parallel/gradient_reducer.hpp"
#include "lockstep/tensor/random.hpp"
#include "lockstep/testing/mpi_test.hpp"

namespace lockstep::testing {

/// Parameters of both dtypes, from none to several thousand numbers, with drawn values.
inline std::vector<NamedParameter> drawn_parameters() {
  struct Form {
    const char* name;
    Shape shape;
    DType dtype;
  };
  const std::vector<Form> forms{
      {"scalar", {}, DType::f32},         {"a.weight", {17, 63}, DType::f32},
      {"a.bias", {17}, DType::f64},       {"empty", {0}, DType::f32},
      {"b.weight", {5, 41}, DType::f64},  {"b.bias", {3}, DType::f32},
      {"c.weight", {64, 50}, DType::f32}, {"c.bias", {64}, DType::f32},
      {"d.weight", {129}, DType::f64}};
  std::vector<NamedParameter> parameters;
  for (const Form& form : forms) {
    Tensor value = Tensor::empty(form.shape, form.dtype);
    fill_normal(value, RandomKey(parameters.size()), 0, 1);
    parameters.emplace_back(form.name, Parameter(value));
  }
  return parameters;
}

/// Steps of an optimizer with gradients that each rank has drawn for itself.
class DrawnTraining {
 public:
  explicit DrawnTraining(const Communicator& ranks = world(),
                         std::vector<NamedParameter> drawn = drawn_parameters())
      : parameters(std::move(drawn)), ranks_(ranks) {}

  /// The gradients are reduced from here on.
  void reduce() { reducer_.emplace(parameters, ranks_); }
  void stop_reducing() { reducer_.reset(); }

  /// Of all parameters that want one, but for some names.
  void backward(std::uint64_t step, const std::set<std::string>& without = {}) {
    backward(step, *reducer_, without);
  }
  void backward(std::uint64_t step, GradientReducer& reducer,
                const std::set<std::string>& without = {}) {
    for (auto& [name, parameter] : parameters) {
      if (!parameter.requires_grad() || without.contains(name)) continue;
      const RandomKey key(1000 * step + static_cast<std::uint64_t>(ranks_.rank()));
      fill_normal(parameter.mutable_grad(), key.fold(index_of(name)), 0, 1);
      reducer.mark_ready(parameter);
    }
    reducer.finish();
  }
  void run(KeyedOptimizer& optimizer, std::uint64_t first, std::uint64_t steps,
           const std::set<std::string>& without = {}) {
    for (std::uint64_t step = first; step < first + steps; ++step) {
      optimizer.zero_grad();
      backward(step, without);
      optimizer.step();
    }
  }

  Parameter& parameter(const std::string& name) { return parameters[index_of(name)].parameter; }

  StateDict values() const {
    StateDict values;
    for (const auto& [name, parameter] : parameters) values[name] = parameter.value().clone();
    return values;
  }

  std::vector<NamedParameter> parameters;

 private:
  std::size_t index_of(const std::string& name) const {
    std::size_t index = 0;
    while (parameters[index].name != name) ++index;
    return index;
  }

  Communicator ranks_;
  std::optional<GradientReducer> reducer_;
};

/// Whether states or values are alike on this rank, naming the first that is not.
inline ::testing::AssertionResult same(const StateDict& found, const StateDict& expected) {
  for (const auto& [name, value] : expected) {
    if (!found.contains(name)) return ::testing::AssertionFailure() << name << " is missing";
    if (!bit_equal(found.at(name), value)) return ::testing::AssertionFailure() << name;
  }
  if (found.size() == expected.size()) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << found.size() << " entries";
}

}  // namespace lockstep::testing
