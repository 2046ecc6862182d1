#include "lockstep/nn/recurrent.hpp"

#include <fmt/format.h>

#include <cmath>

#include "lockstep/autograd/operations.hpp"
#include "lockstep/autograd/structure.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/tensor/random.hpp"

namespace lockstep::nn {
namespace {

constexpr std::size_t of_cell = 4;  // parameters

std::size_t cell_of(std::int64_t layer, std::int64_t direction, std::int64_t directions) {
  return static_cast<std::size_t>(layer * directions + direction);
}

void check_states(const char* what, std::size_t found, std::int64_t expected) {
  if (found == 0 || found == static_cast<std::size_t>(expected)) return;
  throw ShapeError(fmt::format("{}: expected {} states, one of each layer and direction, found {}",
                               what, expected, found));
}

Variable state_at(const std::vector<Variable>& states, std::size_t cell) {
  return states.empty() ? Variable() : states.at(cell);
}

}  // namespace

Recurrent::Recurrent(const char* what, std::int64_t gates, std::int64_t in, std::int64_t hidden,
                     const RecurrentOptions& options)
    : hidden_(hidden), options_(options) {
  if (in < 1 || hidden < 1 || options.layers < 1) {
    throw OptionError(fmt::format("{}: expected in, hidden and layers >= 1, found {}, {} and {}",
                                  what, in, hidden, options.layers));
  }
  if (!(options.dropout >= 0 && options.dropout < 1)) {
    throw OptionError(
        fmt::format("{}: expected 0 <= dropout < 1, found {}", what, options.dropout));
  }
  const std::int64_t wide = gates * hidden;
  for (std::int64_t layer = 0; layer < options.layers; ++layer) {
    const std::int64_t features = layer == 0 ? in : hidden * directions();
    for (std::int64_t direction = 0; direction < directions(); ++direction) {
      const auto add = [&](const char* name, const Shape& shape, bool is_there) {
        parameters_.emplace_back(
            fmt::format("{}_l{}{}", name, layer, direction == 0 ? "" : "_reverse"),
            is_there ? Parameter(Tensor::empty(shape, options.dtype)) : Parameter());
      };
      add("weight_ih", {wide, features}, true);
      add("weight_hh", {wide, hidden}, true);
      add("bias_ih", {wide}, options.bias);
      add("bias_hh", {wide}, options.bias);
    }
  }
  Recurrent::reset_parameters(RandomKey(0));
}

void Recurrent::visit(Visitor& visitor) {
  for (auto& [name, parameter] : parameters_) visitor(name, parameter);
  if (options_.dropout > 0) visitor("random", random_);
}

void Recurrent::reset_parameters(RandomKey key) {
  const double bound = 1 / std::sqrt(static_cast<double>(hidden_));
  for (auto& [name, parameter] : parameters_) {
    if (!parameter.defined()) continue;
    fill_uniform(parameter.mutable_value(), key.fold(name), -bound, bound);
  }
}

RecurrentWeights Recurrent::weights(std::int64_t layer, std::int64_t direction) const {
  const std::size_t first = of_cell * cell_of(layer, direction, directions());
  return {parameters_.at(first).second, parameters_.at(first + 1).second,
          parameters_.at(first + 2).second, parameters_.at(first + 3).second};
}

Variable Recurrent::input_of(std::int64_t layer, const Variable& x) {
  if (layer == 0 || !training() || options_.dropout == 0) return x;
  return dropout(x, options_.dropout, random_.next());
}

LSTM::LSTM(std::int64_t in, std::int64_t hidden, const RecurrentOptions& options)
    : Recurrent("LSTM", 4, in, hidden, options) {}

Variable LSTM::forward(const Variable& x) { return forward(x, State()).first; }

std::pair<Variable, LSTM::State> LSTM::forward(const Variable& x, const State& state) {
  check_states("LSTM", state.hidden.size(), options_.layers * directions());
  check_states("LSTM", state.cell.size(), options_.layers * directions());
  Variable y = x;
  State after;
  for (std::int64_t layer = 0; layer < options_.layers; ++layer) {
    const Variable input = input_of(layer, y);
    std::vector<Variable> outputs;
    for (std::int64_t direction = 0; direction < directions(); ++direction) {
      const std::size_t cell = cell_of(layer, direction, directions());
      LstmResult found = lstm(input, weights(layer, direction), state_at(state.hidden, cell),
                              state_at(state.cell, cell), direction == 1);
      outputs.push_back(found.outputs);
      after.hidden.push_back(found.hidden);
      after.cell.push_back(found.cell);
    }
    y = outputs.size() == 1 ? outputs.front() : concatenate(outputs, 2);
  }
  return {y, after};
}

GRU::GRU(std::int64_t in, std::int64_t hidden, const RecurrentOptions& options)
    : Recurrent("GRU", 3, in, hidden, options) {}

Variable GRU::forward(const Variable& x) { return forward(x, std::vector<Variable>()).first; }

std::pair<Variable, std::vector<Variable>> GRU::forward(const Variable& x,
                                                        const std::vector<Variable>& hidden) {
  check_states("GRU", hidden.size(), options_.layers * directions());
  Variable y = x;
  std::vector<Variable> after;
  for (std::int64_t layer = 0; layer < options_.layers; ++layer) {
    const Variable input = input_of(layer, y);
    std::vector<Variable> outputs;
    for (std::int64_t direction = 0; direction < directions(); ++direction) {
      const std::size_t cell = cell_of(layer, direction, directions());
      GruResult found =
          gru(input, weights(layer, direction), state_at(hidden, cell), direction == 1);
      outputs.push_back(found.outputs);
      after.push_back(found.hidden);
    }
    y = outputs.size() == 1 ? outputs.front() : concatenate(outputs, 2);
  }
  return {y, after};
}

}  // namespace lockstep::nn
