#pragma once

#include <cstdint>
#include <lockstep/lockstep.hpp>

#include "experiments.hpp"
#include "options.hpp"
#include "solver.hpp"

/// What is minimised, at one conductivity.
struct Objective {
  double misfit = 0;     ///< mean over all experiments; 1 at the noise
  double roughness = 0;  ///< total variation of the logarithm of the conductivity
  double value = 0;      ///< misfit / 2 + regularisation · roughness
};

/// Finds the conductivity in the array of a solver. Each rank has all of it, and some of the
/// experiments, or none.
class Inversion {
 public:
  /// Collective. Begins with k = 1.
  Inversion(const Options& options, const lockstep::Communicator& ranks);
  Inversion(const Inversion&) = delete;
  Inversion& operator=(const Inversion&) = delete;

  /// The logarithm of the conductivity, of shape (cells, cells), in the solver's memory.
  lockstep::Parameter& parameter() { return parameter_; }
  const DiffusionSolver& solver() const noexcept { return solver_; }

  /// The objective and, in the parameter, its gradient: that over the experiments of all ranks.
  /// Collective.
  Objective evaluate();

  /// ‖k - true k‖ / ‖true k‖ over all cells.
  double error() const;
  const Field& truth() const noexcept { return truth_; }

 private:
  double add_roughness(std::span<double> gradient) const;

  lockstep::Communicator ranks_;
  double regularisation_;
  std::int64_t experiments_in_all_;
  DiffusionSolver solver_;
  Field truth_;
  Experiments experiments_;
  lockstep::Parameter parameter_;
  lockstep::GradientReducer reducer_;
};
