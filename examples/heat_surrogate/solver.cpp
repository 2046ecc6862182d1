#include "solver.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace {

using std::numbers::pi;

constexpr double diffusivity = 2e-3;
constexpr double courant_number = 0.8;

// Of one vortex that fills the box. Faces get differences of it, so that as much gas leaves a cell
// as enters it.
double stream(double x, double y) { return std::sin(pi * x) * std::sin(pi * y) / pi; }

CellState at_begin(double x, double y) {
  const double distance = std::hypot(x - 0.2, y - 0.25) / 0.12;
  return {0.15 + 0.85 * std::exp(-distance * distance),
          0.8 + 0.2 * std::cos(3 * pi * x) * std::cos(2 * pi * y)};
}

// Out of a cell in the direction of the flow, from the one before to the one after the face.
double flux(double velocity, double before, double after, double cells) {
  return (velocity > 0 ? velocity * before : velocity * after) -
         diffusivity * cells * (after - before);
}

}  // namespace

Solver::Solver(const Decomposition& cells)
    : cells_(&cells),
      fields_{std::vector<double>(cells.field_size()), std::vector<double>(cells.field_size())},
      velocity_x_(cells.field_size()),
      velocity_y_(cells.field_size()),
      moved_(cells.field_size()) {
  const Block& block = cells.block();
  const double n = cells.cells();
  for (int row = 0; row <= block.rows; ++row) {
    for (int column = 0; column <= block.columns; ++column) {
      const std::size_t i = cells.index(row, column);
      const double x = (block.column + column) / n, y = (block.row + row) / n;
      velocity_x_[i] = n * (stream(x, y + 1 / n) - stream(x, y));
      velocity_y_[i] = -n * (stream(x + 1 / n, y) - stream(x, y));
      if (row == block.rows || column == block.columns) continue;
      const CellState begin = at_begin(x + 0.5 / n, y + 0.5 / n);
      fields_.temperature[i] = begin.temperature;
      fields_.fuel[i] = begin.fuel;
    }
  }
  double fastest = 0;
  for (int row = 0; row < block.rows; ++row) {
    for (int column = 0; column < block.columns; ++column) {
      const std::size_t i = cells.index(row, column);
      fastest = std::max(fastest, std::abs(velocity_x_[i]) + std::abs(velocity_y_[i]));
    }
  }
  MPI_Allreduce(MPI_IN_PLACE, &fastest, 1, MPI_DOUBLE, MPI_MAX, cells.communicator());
  time_step_ = courant_number / (n * fastest + 4 * n * n * diffusivity);
}

void Solver::move(std::vector<double>& field) {
  cells_->exchange_border(field);
  const Block& block = cells_->block();
  const double n = cells_->cells();
  const std::size_t up = cells_->index(1, 0) - cells_->index(0, 0);
  for (int row = 0; row < block.rows; ++row) {
    for (int column = 0; column < block.columns; ++column) {
      const std::size_t i = cells_->index(row, column);
      const double left = flux(velocity_x_[i], field[i - 1], field[i], n);
      const double right = flux(velocity_x_[i + 1], field[i], field[i + 1], n);
      const double lower = flux(velocity_y_[i], field[i - up], field[i], n);
      const double upper = flux(velocity_y_[i + up], field[i], field[i + up], n);
      moved_[i] = field[i] - time_step_ * n * (right - left + upper - lower);
    }
  }
  std::swap(field, moved_);
}

void Solver::flow() {
  move(fields_.temperature);
  move(fields_.fuel);
}

std::vector<std::size_t> Solver::burning_cells() const {
  std::vector<std::size_t> cells;
  const Block& block = cells_->block();
  for (int row = 0; row < block.rows; ++row) {
    for (int column = 0; column < block.columns; ++column) {
      const std::size_t i = cells_->index(row, column);
      if (burns({fields_.temperature[i], fields_.fuel[i]})) cells.push_back(i);
    }
  }
  return cells;
}
