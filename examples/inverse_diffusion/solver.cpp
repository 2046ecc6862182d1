#include "solver.hpp"

#include <array>
#include <cmath>
#include <numeric>
#include <stdexcept>

namespace {

/// Several sums side by side, for a single one waits for each addition.
double dot(const Field& x, const Field& y) {
  std::array<double, 8> sums{};
  std::size_t i = 0;
  for (; i + sums.size() <= x.size(); i += sums.size()) {
    for (std::size_t lane = 0; lane < sums.size(); ++lane) sums[lane] += x[i + lane] * y[i + lane];
  }
  for (; i < x.size(); ++i) sums[0] += x[i] * y[i];
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

/// Takes the flow over the faces between cells i and i + stride into y.
void add_neighbours(const Field& faces, std::size_t stride, const Field& x, Field& y) {
  const std::size_t pairs = x.size() - stride;
  for (std::size_t i = 0; i < pairs; ++i) y[i] -= faces[i] * x[i + stride];
  for (std::size_t i = 0; i < pairs; ++i) y[i + stride] -= faces[i] * x[i];
}

}  // namespace

DiffusionSolver::DiffusionSolver(std::size_t cells)
    : cells_(cells),
      log_conductivity_(cells * cells),
      conductivity_(cells * cells),
      right_(cells * cells),
      up_(cells * cells),
      border_(cells * cells),
      diagonal_(cells * cells) {
  assemble();
}

void DiffusionSolver::assemble() {
  const std::size_t n = cells_;
  for (std::size_t i = 0; i < n * n; ++i) conductivity_[i] = std::exp(log_conductivity_[i]);
  const auto face = [this](std::size_t i, std::size_t j) {
    return 2 / (1 / conductivity_[i] + 1 / conductivity_[j]);
  };
  for (std::size_t row = 0; row < n; ++row) {
    for (std::size_t column = 0; column < n; ++column) {
      const std::size_t i = row * n + column;
      right_[i] = column + 1 < n ? face(i, i + 1) : 0;
      up_[i] = row + 1 < n ? face(i, i + n) : 0;
      // The border is half a cell away, so that a face there counts twice.
      const int faces = (row == 0) + (row + 1 == n) + (column == 0) + (column + 1 == n);
      border_[i] = 2 * faces * conductivity_[i];
    }
  }
  diagonal_ = border_;
  for (std::size_t i = 0; i < n * n; ++i) {
    diagonal_[i] += right_[i] + up_[i];
    if (i >= 1) diagonal_[i] += right_[i - 1];
    if (i >= n) diagonal_[i] += up_[i - n];
  }
}

void DiffusionSolver::multiply(const Field& x, Field& y) const {
  for (std::size_t i = 0; i < x.size(); ++i) y[i] = diagonal_[i] * x[i];
  add_neighbours(right_, 1, x, y);
  add_neighbours(up_, cells_, x, y);
}

Field DiffusionSolver::solve(const Field& right_side) const {
  constexpr double tolerance = 1e-12;
  const std::size_t size = right_side.size();
  const double goal = tolerance * std::sqrt(dot(right_side, right_side));
  Field u(size), residual = right_side, preconditioned(size), direction(size), product(size);
  Field inverse(size);
  for (std::size_t i = 0; i < size; ++i) inverse[i] = 1 / diagonal_[i];
  double square = 0;  // of the residual, in the norm of the preconditioner
  const std::size_t limit = 100 * cells_;
  for (std::size_t iteration = 0; iteration < limit; ++iteration) {
    if (std::sqrt(dot(residual, residual)) <= goal) return u;
    for (std::size_t i = 0; i < size; ++i) preconditioned[i] = inverse[i] * residual[i];
    const double before = square;
    square = dot(residual, preconditioned);
    if (!std::isfinite(square)) break;
    const double share = iteration == 0 ? 0 : square / before;
    for (std::size_t i = 0; i < size; ++i) direction[i] = preconditioned[i] + share * direction[i];
    multiply(direction, product);
    const double step = square / dot(direction, product);
    for (std::size_t i = 0; i < size; ++i) {
      u[i] += step * direction[i];
      residual[i] -= step * product[i];
    }
  }
  throw std::runtime_error(
      "conjugate gradients do not converge: the conductivity is too uneven, or not finite");
}

void DiffusionSolver::add_gradient(const Field& u, const Field& adjoint,
                                   std::span<double> gradient) const {
  // From A u = f follows dJ = -adjoint · dA u, and A is a sum over faces.
  const auto add_faces = [&](const Field& faces, std::size_t stride) {
    for (std::size_t i = 0; i + stride < u.size(); ++i) {
      const std::size_t j = i + stride;
      const double flow = faces[i] * (adjoint[i] - adjoint[j]) * (u[i] - u[j]);
      const double share = conductivity_[j] / (conductivity_[i] + conductivity_[j]);
      gradient[i] -= flow * share;
      gradient[j] -= flow * (1 - share);
    }
  };
  add_faces(right_, 1);
  add_faces(up_, cells_);
  for (std::size_t i = 0; i < u.size(); ++i) gradient[i] -= border_[i] * adjoint[i] * u[i];
}
