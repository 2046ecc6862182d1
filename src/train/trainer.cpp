#include "lockstep/train/trainer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <utility>

#include "lockstep/core/error.hpp"

namespace lockstep::train {
namespace {

// What an estimate is multiplied with when no step has fit.
constexpr double patience = 0.9;

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

struct Trainer::Sums {
  std::int64_t steps = 0;
  double loss = 0;  // of this rank, times samples
  std::int64_t samples = 0;
};

Trainer::Trainer(const Communicator& communicator, Step step, const TrainerOptions& options)
    : communicator_(communicator),
      step_(std::move(step)),
      clock_(options.clock ? options.clock : steady_seconds) {
  if (!step_) throw OptionError("a Trainer needs a function that makes a step");
}

void Trainer::run(std::int64_t steps, Sums& sums) {
  for (std::int64_t i = 0; i < steps; ++i) {
    const StepLoss step = step_();
    ++steps_;
    ++sums.steps;
    if (step.samples == 0) continue;
    sums.loss += step.loss * static_cast<double>(step.samples);
    sums.samples += step.samples;
  }
}

TrainReport Trainer::report(const Sums& sums, double begin) {
  std::array<double, 2> loss{sums.loss, static_cast<double>(sums.samples)};
  communicator_.all_reduce(std::span<double>(loss));
  TrainReport report{.steps = sums.steps, .seconds = clock_() - begin};
  if (loss[1] > 0) report.loss = loss[0] / loss[1];
  return report;
}

TrainReport Trainer::train(std::int64_t steps) {
  if (steps < 0) throw OptionError(fmt::format("expected steps ≥ 0, found {}", steps));
  const double begin = clock_();
  Sums sums;
  run(steps, sums);
  if (steps > 0) {
    const double took = (clock_() - begin) / static_cast<double>(steps);
    seconds_per_step_ = communicator_.all_reduce(took, ReduceOp::max);
  }
  return report(sums, begin);
}

std::int64_t Trainer::steps_that_fit(double seconds) const {
  // A first step also makes what later ones use again, so it tells little of them.
  if (steps_ < 2) return seconds > 0 ? 1 : 0;
  if (seconds < seconds_per_step_) return 0;
  // Half of them, since not all take the same time: the last ones are made one by one.
  const double half = std::min(seconds / seconds_per_step_ / 2, 1e6);
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(half));
}

TrainReport Trainer::train_for(double seconds) {
  const double begin = clock_();
  communicator_.agree([&] {
    if (!(seconds >= 0)) {
      throw OptionError(fmt::format("expected a budget of seconds ≥ 0, found {}", seconds));
    }
  });
  Sums sums;
  const double budget = communicator_.all_reduce(seconds, ReduceOp::min);
  double left = budget;
  while (const std::int64_t steps = steps_that_fit(left)) {
    const double before = clock_();
    run(steps, sums);
    const double now = clock_();
    std::array<double, 2> slowest{(now - before) / static_cast<double>(steps), now - begin};
    communicator_.all_reduce(std::span<double>(slowest), ReduceOp::max);
    seconds_per_step_ = slowest[0];
    left = budget - slowest[1];
  }
  // Lest one slow step be the last.
  if (budget > 0 && sums.steps == 0) seconds_per_step_ *= patience;
  return report(sums, begin);
}

}  // namespace lockstep::train
