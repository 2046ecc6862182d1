#include "lockstep/optim/loss_scale.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lockstep/autograd/operations.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep::optim {

void LossScaleOptions::check() const {
  const auto require = [](bool holds, const char* expected, auto found) {
    if (!holds)
      throw OptionError(fmt::format("loss scale: expected {}, found {}", expected, found));
  };
  require(min > 0 && std::isfinite(1 / min), "min > 0", min);
  require(max >= min && std::isfinite(max), "max >= min that is finite", max);
  require(initial >= min && initial <= max, "initial between min and max", initial);
  require(growth >= 1 && std::isfinite(growth), "growth >= 1 that is finite", growth);
  require(backoff > 0 && backoff < 1, "0 < backoff < 1", backoff);
  require(growth_interval >= 0, "growth_interval >= 0", growth_interval);
}

LossScale::LossScale(const LossScaleOptions& options) : options_(options), scale_(options.initial) {
  options_.check();
}

Variable LossScale::scale(const Variable& loss) const { return loss * scale_; }

StepReport LossScale::step(KeyedOptimizer& optimizer) {
  StepReport report = optimizer.step({.gradient_scale = 1 / scale_, .non_finite = NonFinite::skip});
  if (!report.applied) {
    outcome_ = Outcome::skipped;
  } else if (outcome_ == Outcome::none) {
    outcome_ = Outcome::applied;
  }
  return report;
}

void LossScale::update() {
  if (outcome_ == Outcome::none) {
    throw StateError("loss scale: no optimizer has made a step since the last update");
  }
  const bool skipped = outcome_ == Outcome::skipped;
  outcome_ = Outcome::none;
  if (options_.growth_interval == 0) return;
  if (!skipped && ++steps_ < options_.growth_interval) return;
  steps_ = 0;
  scale_ = std::clamp(scale_ * (skipped ? options_.backoff : options_.growth), options_.min,
                      options_.max);
}

StateDict LossScale::state_dict() const { return {{"scale", scale_}, {"steps", steps_}}; }

void LossScale::check_restore(const StateDict& source) const {
  const double scale = source.at("scale").as_double();
  if (!(scale >= options_.min && scale <= options_.max)) {
    throw StateError(fmt::format("state of a loss scale: expected a scale of {} to {}, found {}",
                                 options_.min, options_.max, scale));
  }
  const std::int64_t steps = source.at("steps").as_int();
  if (steps < 0) {
    throw StateError(fmt::format("state of a loss scale: expected steps >= 0, found {}", steps));
  }
}

void LossScale::restore(const StateDict& source) {
  check_restore(source);
  scale_ = source.at("scale").as_double();
  steps_ = source.at("steps").as_int();
  outcome_ = Outcome::none;
}

}  // namespace lockstep::optim
