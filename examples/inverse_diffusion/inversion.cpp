#include "inversion.hpp"

#include <algorithm>
#include <cmath>
#include <lockstep/core/part_begin.hpp>

using namespace lockstep;

Inversion::Inversion(const Options& options, const Communicator& ranks)
    : ranks_(ranks),
      regularisation_(options.regularisation),
      experiments_in_all_(options.experiments),
      solver_(static_cast<std::size_t>(options.cells)),
      truth_(true_log_conductivity(solver_)),
      experiments_(solver_.cells(), part_begin(options.experiments, ranks.rank(), ranks.size()),
                   part_begin(options.experiments, ranks.rank() + 1, ranks.size()),
                   {.noise = options.noise, .seed = options.seed}),
      parameter_("log_conductivity",
                 Tensor::borrow(solver_.log_conductivity(), {options.cells, options.cells})),
      reducer_({parameter_}, ranks) {
  // A rank's gradient is a mean over its experiments, and the reduced one the mean over all of them.
  reducer_.set_weight(static_cast<double>(experiments_.size()));
}

Objective Inversion::evaluate() {
  parameter_.zero_grad();
  const std::span<double> gradient = parameter_.mutable_grad().span<double>();
  Objective objective;
  ranks_.agree([&] {  // that no solver has failed
    solver_.assemble();
    const double own = std::max(1.0, static_cast<double>(experiments_.size()));
    objective.misfit = experiments_.misfit(solver_, 0.5 / own, gradient);
    objective.roughness = add_roughness(gradient);
  });
  reducer_.mark_ready(parameter_);
  reducer_.finish();
  objective.misfit = ranks_.all_reduce(objective.misfit) / static_cast<double>(experiments_in_all_);
  objective.value = objective.misfit / 2 + regularisation_ * objective.roughness;
  return objective;
}

double Inversion::add_roughness(std::span<double> gradient) const {
  // The square root is smooth where the field is flat, and its slope that of |grad m| at edges.
  constexpr double smoothing = 1;
  const std::size_t n = solver_.cells();
  const double width = 1 / static_cast<double>(n);
  const std::span<const double> m = solver_.log_conductivity();
  double roughness = 0;
  for (std::size_t row = 0; row < n; ++row) {
    for (std::size_t column = 0; column < n; ++column) {
      const std::size_t i = row * n + column;
      const std::size_t right = column + 1 < n ? i + 1 : i, up = row + 1 < n ? i + n : i;
      const double dx = (m[right] - m[i]) / width, dy = (m[up] - m[i]) / width;
      const double length = std::sqrt(dx * dx + dy * dy + smoothing * smoothing);
      roughness += (length - smoothing) * width * width;
      const double factor = regularisation_ * width / length;
      gradient[right] += factor * dx;
      gradient[up] += factor * dy;
      gradient[i] -= factor * (dx + dy);
    }
  }
  return roughness;
}

double Inversion::error() const {
  double squares = 0, differences = 0;
  for (std::size_t i = 0; i < truth_.size(); ++i) {
    const double expected = std::exp(truth_[i]);
    squares += expected * expected;
    differences += std::pow(std::exp(solver_.log_conductivity()[i]) - expected, 2);
  }
  return std::sqrt(differences / squares);
}
