#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "solver.hpp"

/// A position in the unit square.
struct Point {
  double x = 0, y = 0;
};

/// Where the source of an experiment is; they spread over the square, however many there are.
Point source_position(std::int64_t experiment);

/// The cells of sensors on a grid of so many cells in a row.
std::vector<std::size_t> sensor_cells(std::size_t cells);

/// The natural logarithm of the conductivity that is to be found, in each cell of a solver's grid.
Field true_log_conductivity(const DiffusionSolver& grid);

struct ExperimentOptions {
  double noise = 0.01;  ///< of an observation, as a share of their root mean square
  std::uint64_t seed = 1;
};

/// Some of the experiments: in each there is a source at one place, and u is observed, with noise, at
/// sensors that are the same in all.
class Experiments {
 public:
  /// Those from `begin` to `end`, observed with the true conductivity on a grid of so many cells in a
  /// row. None depends on which others there are.
  Experiments(std::size_t cells, std::int64_t begin, std::int64_t end,
              const ExperimentOptions& options);

  std::int64_t size() const noexcept { return static_cast<std::int64_t>(experiments_.size()); }

  /// The squares of what the solver's u and the observations differ by, in units of the noise: the sum
  /// over the experiments of their means over the sensors. So 1 an experiment is as good as the noise
  /// allows. Adds `scale` times the derivatives to `gradient`.
  double misfit(const DiffusionSolver& solver, double scale, std::span<double> gradient) const;

 private:
  struct Experiment {
    Field source;
    std::vector<double> observed;
    double noise = 0;  // its standard deviation
  };

  std::vector<std::size_t> sensors_;  // cells
  std::vector<Experiment> experiments_;
};
