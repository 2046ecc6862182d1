#pragma once

#include <cstddef>
#include <vector>

#include "decomposition.hpp"
#include "reaction.hpp"

/// A rank's cells, with their border.
struct Fields {
  std::vector<double> temperature, fuel;
};

/// A gas that turns in a closed box of length 1, and burns: advection, diffusion and reaction of
/// heat and fuel. Of a time step this makes the flow, by first-order upwind fluxes and central
/// differences; what the reaction does in it comes after (Lie splitting).
class Solver {
 public:
  /// A hot spot in a corner, and fuel that is richer in some places. The decomposition must outlive
  /// it.
  explicit Solver(const Decomposition& cells);

  /// The longest that is stable, the same on all ranks.
  double time_step() const noexcept { return time_step_; }

  Fields& fields() noexcept { return fields_; }
  const Fields& fields() const noexcept { return fields_; }

  /// Moves heat and fuel for a time step. Collective.
  void flow();

  /// Where the fields have the cells of this rank that burn, which may be none.
  std::vector<std::size_t> burning_cells() const;

 private:
  void move(std::vector<double>& field);

  const Decomposition* cells_;
  Fields fields_;
  // Through the left and the lower face of each cell, and by the border's through the other ones.
  std::vector<double> velocity_x_, velocity_y_;
  std::vector<double> moved_;
  double time_step_ = 0;
};
