#pragma once

#include <cstddef>
#include <span>
#include <vector>

/// A number for each cell, row by row.
using Field = std::vector<double>;

/// Steady diffusion on the unit square: -div(k grad u) = f, with u = 0 on the border. Finite volumes
/// on cells × cells squares, with the harmonic mean of k on the face between two of them.
class DiffusionSolver {
 public:
  /// With k = 1.
  explicit DiffusionSolver(std::size_t cells);

  /// Of a row or column.
  std::size_t cells() const noexcept { return cells_; }
  /// The middle of a cell on either axis.
  double centre(std::size_t index) const noexcept {
    return (static_cast<double>(index) + 0.5) / static_cast<double>(cells_);
  }

  /// The natural logarithm of k, in the memory where the solver has it. assemble() makes what is
  /// written there count.
  std::span<double> log_conductivity() noexcept { return log_conductivity_; }
  std::span<const double> log_conductivity() const noexcept { return log_conductivity_; }
  void assemble();

  /// The u of a right side, which is f times the area of a cell, by conjugate gradients.
  /// std::runtime_error where they do not converge.
  Field solve(const Field& right_side) const;

  /// Adds to `gradient` the derivatives with respect to log_conductivity() of a function J of u: the
  /// adjoint is solve(dJ/du).
  void add_gradient(const Field& u, const Field& adjoint, std::span<double> gradient) const;

 private:
  void multiply(const Field& x, Field& y) const;

  std::size_t cells_;
  Field log_conductivity_;
  Field conductivity_;
  // The matrix: what flows for a difference of 1 between a cell and the next one in its row (right_),
  // in its column (up_), which is 0 where there is none, and in all from a cell at 1 (diagonal_).
  Field right_, up_, border_, diagonal_;
};
