#include "surrogate.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

using namespace lockstep;

namespace {

// Of the squares of what was seen: their number in a unit of temperature or fuel, and in all. The
// temperature may be up to 2.
constexpr double squares_in_unit = 32;
constexpr std::size_t temperature_squares = 64, fuel_squares = 33;

std::optional<std::size_t> square_of(const CellState& cell) {
  const double t = std::floor(cell.temperature * squares_in_unit);
  const double c = std::floor(cell.fuel * squares_in_unit);
  if (!(t >= 0 && t < temperature_squares && c >= 0 && c < fuel_squares)) return std::nullopt;
  return static_cast<std::size_t>(t) * fuel_squares + static_cast<std::size_t>(c);
}

CellState state_of(const Fields& fields, std::size_t cell) {
  return {fields.temperature[cell], fields.fuel[cell]};
}

// What the network is given of cells, a row each: numbers around 0. A rate is nearly
// exp(-a/temperature).
Tensor inputs_of(const Fields& fields, std::span<const std::size_t> cells) {
  Tensor inputs = Tensor::empty({static_cast<std::int64_t>(cells.size()), 2});
  float* number = inputs.data<float>();
  for (const std::size_t cell : cells) {
    *number++ = static_cast<float>(1 / fields.temperature[cell] - 2);
    *number++ = static_cast<float>(3 * fields.fuel[cell] - 1.5);
  }
  return inputs;
}

// What it gives: logarithms, by which slow reactions are as exact as fast ones, and no fuel is less
// than none. They are spread by 3 around -6.
struct Change {
  explicit Change(const CellState& before, const CellState& after)
      : heat(scaled((after.temperature - before.temperature) / before.fuel)),
        burnt(scaled(std::log(before.fuel / after.fuel))) {}
  explicit Change(const float* outputs) : heat(outputs[0]), burnt(outputs[1]) {}

  CellState after(const CellState& before) const {
    return {before.temperature + before.fuel * std::exp(3 * heat - 6),
            before.fuel * std::exp(-std::exp(3 * burnt - 6))};
  }

  double heat, burnt;

 private:
  static double scaled(double change) { return (std::log(std::max(change, 1e-12)) + 6) / 3; }
};

nn::Sequential make_model(const Options& options) {
  nn::Sequential model{nn::Linear(2, options.width), nn::Tanh(),
                       nn::Linear(options.width, options.width), nn::Tanh(),
                       nn::Linear(options.width, 2)};
  model.initialize(options.seed);
  return model;
}

}  // namespace

Surrogate::Surrogate(const Communicator& ranks, double time_step, const Options& options)
    : ranks_(ranks),
      options_(options),
      time_step_(time_step),
      model_(make_model(options)),
      replica_(model_, ranks),
      optimizer_(model_.named_parameters(), optim::Adam({.lr = options.lr})),
      scheduler_(optimizer_, optim::schedule::cosine({.steps = options.steps})),
      reservoir_(options.capacity, {2}, {2}, ranks, {.seed = options.seed}),
      trainer_(ranks, [this] { return train_step(); }),
      seen_(temperature_squares * fuel_squares),
      seen_state_({{"squares", Tensor::borrow(seen_)}}) {}

void Surrogate::learn(Fields& fields, std::span<const std::size_t> cells) {
  const Tensor inputs = inputs_of(fields, cells);
  Tensor targets = Tensor::empty(inputs.shape());
  float* target = targets.data<float>();
  for (const std::size_t cell : cells) {
    const CellState before = state_of(fields, cell);
    const CellState after = react(before, time_step_);
    const Change change(before, after);
    *target++ = static_cast<float>(change.heat);
    *target++ = static_cast<float>(change.burnt);
    fields.temperature[cell] = after.temperature;
    fields.fuel[cell] = after.fuel;
    if (const auto square = square_of(before)) seen_[*square] = 1;
  }
  reservoir_.add(inputs, targets);
}

train::StepLoss Surrogate::train_step() {
  const data::Batch batch = reservoir_.draw(options_.batch);
  optimizer_.zero_grad();
  const double loss = replica_.backward(batch, [this](const data::Batch& part) {
    return mean_squared_error(model_(part.inputs), part.targets);
  });
  optimizer_.step();
  return {loss, batch.size()};
}

train::TrainReport Surrogate::train() {
  ranks_.all_reduce(std::span(seen_), ReduceOp::max);
  const train::TrainReport report = options_.train_steps ? trainer_.train(*options_.train_steps)
                                                         : trainer_.train_for(options_.budget);
  scheduler_.step();
  return report;
}

std::int64_t Surrogate::advance(Fields& fields, std::span<const std::size_t> cells) {
  if (cells.empty()) return 0;
  const NoGrad no_grad;
  const Variable outputs = model_(inputs_of(fields, cells));
  const float* output = outputs.value().data<float>();
  std::int64_t outside = 0;
  for (const std::size_t cell : cells) {
    const CellState before = state_of(fields, cell);
    const auto square = square_of(before);
    CellState after = Change(output).after(before);
    output += 2;
    if (!square || seen_[*square] == 0) {
      after = react(before, time_step_);
      ++outside;
    }
    fields.temperature[cell] = after.temperature;
    fields.fuel[cell] = after.fuel;
  }
  return outside;
}

std::vector<checkpoint::Item> Surrogate::state() {
  return {{"model", model_},
          {"optimizer", optimizer_},
          {"scheduler", scheduler_},
          {"reservoir", reservoir_},
          {"seen", seen_state_}};
}

void react_exactly(Fields& fields, std::span<const std::size_t> cells, double time_step) {
  for (const std::size_t cell : cells) {
    const CellState after = react(state_of(fields, cell), time_step);
    fields.temperature[cell] = after.temperature;
    fields.fuel[cell] = after.fuel;
  }
}
