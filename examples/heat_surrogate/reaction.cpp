#include "reaction.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace {

// Rates at the temperature 1, activation temperatures, and the heat that all of the fuel gives.
constexpr double smoulder_rate = 3, smoulder_activation = 3, smoulder_heat = 0.3;
constexpr double flame_rate = 40, flame_activation = 6, flame_heat = 0.9;

// Of one step, in temperature and in fuel.
constexpr double tolerance = 1e-7;
constexpr double weight = 0.29289321881345248;  // 1 - 1/√2

struct Slope {
  double temperature, fuel;
};

struct Source {
  Slope value;
  Slope by_temperature, by_fuel;  // its derivatives
};

Source source(const CellState& at) {
  const double t = std::max(at.temperature, 1e-3);
  const double smoulder = smoulder_rate * std::exp(smoulder_activation * (1 - 1 / t));
  const double flame = flame_rate * std::exp(flame_activation * (1 - 1 / t));
  const double heat = smoulder_heat * smoulder + flame_heat * flame;
  const double smoulder_by_t = smoulder * smoulder_activation / (t * t);
  const double flame_by_t = flame * flame_activation / (t * t);
  return {{heat * at.fuel, -(smoulder + flame) * at.fuel},
          {(smoulder_heat * smoulder_by_t + flame_heat * flame_by_t) * at.fuel,
           -(smoulder_by_t + flame_by_t) * at.fuel},
          {heat, -(smoulder + flame)}};
}

// Solves slope = source(from + h·slope) by Newton's iteration; false where that does not converge.
bool solve_stage(const CellState& from, double h, Slope& slope) {
  for (int iteration = 0; iteration < 12; ++iteration) {
    const Source at =
        source({from.temperature + h * slope.temperature, from.fuel + h * slope.fuel});
    const double rest_t = at.value.temperature - slope.temperature;
    const double rest_c = at.value.fuel - slope.fuel;
    const double a = 1 - h * at.by_temperature.temperature, b = -h * at.by_fuel.temperature;
    const double c = -h * at.by_temperature.fuel, d = 1 - h * at.by_fuel.fuel;
    const double determinant = a * d - b * c;
    const double change_t = (d * rest_t - b * rest_c) / determinant;
    const double change_c = (a * rest_c - c * rest_t) / determinant;
    slope.temperature += change_t;
    slope.fuel += change_c;
    if (h * std::max(std::abs(change_t), std::abs(change_c)) < 1e-3 * tolerance) return true;
  }
  return false;
}

}  // namespace

bool burns(const CellState& cell) noexcept { return cell.temperature > 0.3 && cell.fuel > 1e-3; }

CellState react(const CellState& cell, double time) {
  CellState now = cell;
  double step = time / 16;
  for (double left = time; left > 0;) {
    step = std::min(step, left);
    if (!(step > 1e-12 * time)) throw std::runtime_error("the reaction has no solution in a cell");
    Slope first = source(now).value;
    bool converged = solve_stage(now, weight * step, first);
    Slope second = first;
    converged = converged && solve_stage({now.temperature + (1 - weight) * step * first.temperature,
                                          now.fuel + (1 - weight) * step * first.fuel},
                                         weight * step, second);
    if (!converged) {
      step /= 4;
      continue;
    }
    // Beside it the method of first order that has the first stage alone.
    const double error = weight * step *
                         std::max(std::abs(second.temperature - first.temperature),
                                  std::abs(second.fuel - first.fuel));
    if (error <= tolerance) {
      now.temperature += step * ((1 - weight) * first.temperature + weight * second.temperature);
      now.fuel += step * ((1 - weight) * first.fuel + weight * second.fuel);
      left = step == left ? 0 : left - step;
    }
    step *= std::clamp(0.9 * std::sqrt(tolerance / std::max(error, 1e-300)), 0.2, 4.0);
  }
  return now;
}
