#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lockstep/autograd/parameter.hpp"
#include "lockstep/optim/keyed_optimizer.hpp"
#include "lockstep/tensor/random.hpp"

namespace lockstep::testing {

inline Tensor drawn(std::uint64_t key, const Shape& shape, DType dtype = DType::f32) {
  Tensor tensor = Tensor::empty(shape, dtype);
  fill_uniform(tensor, RandomKey(key), -1, 1);
  return tensor;
}

/// "a" (3, 2), "b" (4) and "c" (1) of f32, and "d" (5) of f64.
inline std::vector<NamedParameter> small_parameters() {
  return {Parameter("a", drawn(1, {3, 2})), Parameter("b", drawn(2, {4})),
          Parameter("c", drawn(3, {1})), Parameter("d", drawn(4, {5}, DType::f64))};
}

/// A gradient for each parameter, by the number of the step.
inline void set_gradients(const std::vector<NamedParameter>& parameters, std::uint64_t step) {
  std::uint64_t key = 1000 * (step + 1);
  for (const NamedParameter& named : parameters) {
    Parameter parameter = named.parameter;
    parameter.mutable_grad().copy_from(drawn(key++, parameter.shape(), parameter.dtype()));
  }
}

inline void train(KeyedOptimizer& optimizer, const std::vector<NamedParameter>& parameters,
                  std::uint64_t steps, std::uint64_t first = 0) {
  for (std::uint64_t step = first; step < first + steps; ++step) {
    set_gradients(parameters, step);
    optimizer.step();
  }
}

/// Copies of all values, and of the optimizer's state.
inline StateDict snapshot(const KeyedOptimizer& optimizer,
                          const std::vector<NamedParameter>& parameters) {
  StateDict values;
  for (const auto& [name, parameter] : parameters) values[name] = parameter.value().clone();
  return {{"values", values}, {"optimizer", optimizer.state_dict().clone()}};
}

/// The state of one parameter in the optimizer's state dict; empty where it is absent.
inline StateDict state_of(const KeyedOptimizer& optimizer, const std::string& name) {
  const StateDict saved = optimizer.state_dict();
  const StateDict& states = saved.at("state").as_dict();
  return states.contains(name) ? states.at(name).as_dict() : StateDict();
}

}  // namespace lockstep::testing
