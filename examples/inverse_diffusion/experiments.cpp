#include "experiments.hpp"

#include <algorithm>
#include <cmath>
#include <lockstep/lockstep.hpp>
#include <utility>

using namespace lockstep;

namespace {

/// A Gaussian of strength 1 in all.
Field source(const DiffusionSolver& grid, const Point& at) {
  constexpr double width = 0.04, pi = 3.141592653589793;
  const std::size_t n = grid.cells();
  const double area = 1 / static_cast<double>(n * n);
  Field source;
  source.reserve(n * n);
  for (std::size_t row = 0; row < n; ++row) {
    for (std::size_t column = 0; column < n; ++column) {
      const double square =
          std::pow(grid.centre(column) - at.x, 2) + std::pow(grid.centre(row) - at.y, 2);
      source.push_back(area / (2 * pi * width * width) * std::exp(-square / (2 * width * width)));
    }
  }
  return source;
}

}  // namespace

Point source_position(std::int64_t experiment) {
  // Martin Roberts' R2 sequence: multiples of powers of the plastic number's inverse, modulo 1.
  constexpr double first = 0.7548776662466927, second = 0.5698402909980532;
  const auto along = [experiment](double ratio) {
    const double multiple = 0.5 + static_cast<double>(experiment + 1) * ratio;
    return 0.08 + 0.84 * (multiple - std::floor(multiple));
  };
  return {along(first), along(second)};
}

std::vector<std::size_t> sensor_cells(std::size_t cells) {
  constexpr std::size_t in_a_row = 11;
  std::vector<std::size_t> sensors;
  for (std::size_t row = 0; row < in_a_row; ++row) {
    for (std::size_t column = 0; column < in_a_row; ++column) {
      const auto cell = [cells](std::size_t i) { return (2 * i + 1) * cells / (2 * in_a_row); };
      sensors.push_back(cell(row) * cells + cell(column));
    }
  }
  return sensors;
}

Field true_log_conductivity(const DiffusionSolver& grid) {
  const std::size_t n = grid.cells();
  Field field;
  field.reserve(n * n);
  for (std::size_t row = 0; row < n; ++row) {
    for (std::size_t column = 0; column < n; ++column) {
      const double x = grid.centre(column), y = grid.centre(row);
      const bool in_disc = std::hypot(x - 0.32, y - 0.64) < 0.17;
      const bool in_bar = std::abs(x - 0.72) < 0.08 && std::abs(y - 0.45) < 0.28;
      const bool in_ellipse = std::hypot((x - 0.35) / 0.2, (y - 0.22) / 0.09) < 1;
      field.push_back(std::log(in_disc ? 4.0 : in_bar ? 0.3 : in_ellipse ? 2.5 : 1.0));
    }
  }
  return field;
}

Experiments::Experiments(std::size_t cells, std::int64_t begin, std::int64_t end,
                         const ExperimentOptions& options)
    : sensors_(sensor_cells(cells)) {
  DiffusionSolver truth(cells);
  const Field field = true_log_conductivity(truth);
  std::copy(field.begin(), field.end(), truth.log_conductivity().begin());
  truth.assemble();
  const RandomKey key = RandomKey(options.seed).fold("noise");
  Tensor noise = Tensor::empty({static_cast<std::int64_t>(sensors_.size())}, DType::f64);
  for (std::int64_t number = begin; number < end; ++number) {
    Experiment experiment{.source = source(truth, source_position(number)), .observed = {}};
    const Field u = truth.solve(experiment.source);
    double squares = 0;
    for (const std::size_t cell : sensors_) {
      experiment.observed.push_back(u[cell]);
      squares += u[cell] * u[cell];
    }
    experiment.noise = options.noise * std::sqrt(squares / static_cast<double>(sensors_.size()));
    // A function of the seed, the experiment and the sensor: the same on any number of ranks.
    fill_normal(noise, key.fold(static_cast<std::uint64_t>(number)), 0, experiment.noise);
    for (std::size_t i = 0; i < sensors_.size(); ++i) {
      experiment.observed[i] += noise.span<double>()[i];
    }
    experiments_.push_back(std::move(experiment));
  }
}

double Experiments::misfit(const DiffusionSolver& solver, double scale,
                           std::span<double> gradient) const {
  const auto observations = static_cast<double>(sensors_.size());
  double misfit = 0;
  for (const Experiment& experiment : experiments_) {
    const Field u = solver.solve(experiment.source);
    Field derivative(u.size());
    for (std::size_t i = 0; i < sensors_.size(); ++i) {
      const double difference = (u[sensors_[i]] - experiment.observed[i]) / experiment.noise;
      misfit += difference * difference / observations;
      derivative[sensors_[i]] += scale * 2 * difference / experiment.noise / observations;
    }
    solver.add_gradient(u, solver.solve(derivative), gradient);
  }
  return misfit;
}
