#include "comparison.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <lockstep/train/heat_map.hpp>
#include <lockstep/train/metrics.hpp>
#include <string>
#include <utility>
#include <variant>

using namespace lockstep;

namespace {

/// Where some time steps have led to, and what their source terms took.
struct Continuation {
  Fields fields;
  double seconds = 0;  ///< of the slowest rank in each step
  std::int64_t cells = 0;
  std::int64_t exact_cells = 0;  ///< of these, by the exact term

  double cells_per_second() const { return static_cast<double>(cells) / seconds; }
};

/// `advance` returns the number of cells that took the exact term.
template <class Source>
Continuation go_on(Solver solver, std::int64_t steps, const Communicator& ranks,
                   const std::string& label, const Source& advance) {
  train::Progress bar(label, steps, {.enabled = ranks.rank() == 0, .unit = "steps"});
  Continuation result;
  std::vector<double> seconds;
  for (std::int64_t step = 0; step < steps; ++step) {
    solver.flow();
    const double begin = MPI_Wtime();
    const std::vector<std::size_t> cells = solver.burning_cells();
    result.exact_cells += advance(solver.fields(), cells);
    seconds.push_back(MPI_Wtime() - begin);
    result.cells += static_cast<std::int64_t>(cells.size());
    bar.update(step + 1);
  }
  bar.finish();
  result.fields = solver.fields();
  result.cells = ranks.all_reduce(result.cells);
  result.exact_cells = ranks.all_reduce(result.exact_cells);
  ranks.all_reduce(std::span(seconds), ReduceOp::max);
  for (const double step : seconds) result.seconds += step;
  return result;
}

/// √Σ(a - b)² / √Σb²
double relative_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  return std::sqrt(difference / size);
}

train::Chart training_chart(const std::filesystem::path& metrics) {
  train::ChartSeries losses, steps;
  for (const train::MetricRecord& record : train::read_metrics(metrics)) {
    train::ChartPoint loss, made;
    for (const auto& [name, value] : record) {
      if (name == "step") loss.x = made.x = static_cast<double>(std::get<std::int64_t>(value));
      if (name == "loss") loss.y = std::log10(std::get<double>(value));
      if (name == "training_steps") made.y = static_cast<double>(std::get<std::int64_t>(value));
    }
    // In a small budget, not each time step has steps of training.
    if (std::isfinite(loss.y)) losses.points.push_back(loss);
    steps.points.push_back(made);
  }
  return {.title = {},
          .x_label = "time step",
          .panels = {{"log₁₀ of the training loss", {std::move(losses)}},
                     {"steps of training in a time step", {std::move(steps)}, true}}};
}

void print(const char* name, const Continuation& run, std::int64_t steps) {
  fmt::print("{:<13}  {:.3f} ms a step, {:.3f} million cells/s\n", name,
             1e3 * run.seconds / static_cast<double>(steps), 1e-6 * run.cells_per_second());
}

}  // namespace

void compare(const Solver& solver, Surrogate& surrogate, const Decomposition& cells,
             const Options& options, const Communicator& ranks) {
  const std::int64_t steps = options.compare_steps;
  const Continuation exact =
      go_on(solver, steps, ranks, "exact", [&](Fields& fields, const auto& burning) {
        react_exactly(fields, burning, solver.time_step());
        return std::ssize(burning);
      });
  const Continuation learned = go_on(
      solver, steps, ranks, "surrogate",
      [&](Fields& fields, const auto& burning) { return surrogate.advance(fields, burning); });
  const std::vector<double> expected = cells.gather(exact.fields.temperature);
  const std::vector<double> found = cells.gather(learned.fields.temperature);
  const std::vector<double> expected_fuel = cells.gather(exact.fields.fuel);
  const std::vector<double> found_fuel = cells.gather(learned.fields.fuel);
  if (ranks.rank() != 0) return;
  if (exact.cells == 0 || learned.cells == 0) {
    fmt::print("\nnothing burns any more, so there is nothing to compare\n");
    return;
  }

  const double speed_up = learned.cells_per_second() / exact.cells_per_second();
  fmt::print("\nsource term, by the slowest rank\n");
  print("  exact", exact, steps);
  print("  surrogate", learned, steps);
  fmt::print(
      "speed-up       {:.1f} times; {:.2f} % of the cells were unlike any seen, and took the exact "
      "term\n",
      speed_up,
      100 * static_cast<double>(learned.exact_cells) / static_cast<double>(learned.cells));
  fmt::print("difference     {:.3f} % of the temperature, {:.3f} % of the fuel, after {} steps\n",
             100 * relative_difference(found, expected),
             100 * relative_difference(found_fuel, expected_fuel), steps);

  std::vector<double> difference = found;
  double largest = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    difference[i] -= expected[i];
    largest = std::max(largest, std::abs(difference[i]));
  }
  const auto [coldest, hottest] = std::minmax_element(expected.begin(), expected.end());
  const auto path = options.out / "heat_surrogate.svg";
  const auto map = [&](std::string title, const std::vector<double>& values, double low,
                       double high) {
    return train::HeatMap{.title = std::move(title),
                          .values = values,
                          .columns = static_cast<std::size_t>(options.cells),
                          .low = low,
                          .high = high,
                          .diverging = low < 0};
  };
  train::write_field_picture(
      path,
      {.title = fmt::format("{} time steps after the training, with a source term {} times faster",
                            steps, std::lround(speed_up)),
       .maps = {map("temperature, exact", expected, *coldest, *hottest),
                map("temperature, surrogate", found, *coldest, *hottest),
                map("surrogate − exact", difference, -largest, largest)},
       .chart = training_chart(options.out / "metrics.jsonl")});
  fmt::print("picture        {}\n", path.string());
}
