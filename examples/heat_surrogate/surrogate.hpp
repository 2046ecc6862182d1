#pragma once

#include <cstddef>
#include <cstdint>
#include <lockstep/lockstep.hpp>
#include <span>
#include <vector>

#include "options.hpp"
#include "solver.hpp"

/// A network in the place of the source term: the temperature and fuel of a cell give their changes
/// in a time step. It learns from what the exact term does on all ranks, each of which has its own
/// cells.
class Surrogate {
 public:
  /// Collective. Of time steps of that length.
  Surrogate(const lockstep::Communicator& ranks, double time_step, const Options& options);
  Surrogate(const Surrogate&) = delete;
  Surrogate& operator=(const Surrogate&) = delete;

  /// Advances these cells by the exact term, and keeps what that has done to some of them. Not
  /// collective.
  void learn(Fields& fields, std::span<const std::size_t> cells);
  /// Trains on what all ranks have kept, as long as the options say, for one time step. Collective.
  lockstep::train::TrainReport train();

  /// Advances these cells by the network, but for those unlike any that it has seen, which the
  /// exact term advances. Returns how many these were. Not collective.
  std::int64_t advance(Fields& fields, std::span<const std::size_t> cells);

  std::vector<lockstep::checkpoint::Item> state();

 private:
  lockstep::train::StepLoss train_step();

  lockstep::Communicator ranks_;
  Options options_;
  double time_step_;
  lockstep::nn::Sequential model_;
  lockstep::DataParallel replica_;
  lockstep::NamedOptimizer optimizer_;
  lockstep::Scheduler scheduler_;
  lockstep::train::Reservoir reservoir_;
  lockstep::train::Trainer trainer_;
  // For each small square of temperatures and amounts of fuel, 1 where any rank has seen a cell in
  // it.
  std::vector<std::uint8_t> seen_;
  lockstep::NamedTensors seen_state_;
};

/// Advances these cells by the exact term.
void react_exactly(Fields& fields, std::span<const std::size_t> cells, double time_step);
