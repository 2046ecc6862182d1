#include <algorithm>
#include <limits>

#include "lockstep/optim/schedule.hpp"
#include "optim/schedule_checks.hpp"

namespace lockstep::optim::schedule {
namespace {

class OnPlateau : public ScheduleRule {
 public:
  explicit OnPlateau(const OnPlateauOptions& options)
      : options_(options),
        best_(options.mode == PlateauMode::min ? std::numeric_limits<double>::infinity()
                                               : -std::numeric_limits<double>::infinity()) {}
  std::unique_ptr<ScheduleRule> clone() const override {
    return std::make_unique<OnPlateau>(*this);
  }

  double value(double base, std::int64_t) const override {
    for (std::int64_t i = 0; i < reductions_; ++i) {
      const double reduced = std::max(base * options_.factor, options_.minimum);
      // Where one reduction is too small, so are all that follow.
      if (!(base - reduced > options_.eps)) break;
      base = reduced;
    }
    return base;
  }

  bool needs_metric(std::int64_t) const override { return true; }

  void observe(double metric, std::int64_t) override {
    if (better(metric)) {
      best_ = metric;
      bad_steps_ = 0;
    } else {
      ++bad_steps_;
    }
    if (cooldown_ > 0) {
      --cooldown_;
      bad_steps_ = 0;
    }
    if (bad_steps_ > options_.patience) {
      ++reductions_;
      cooldown_ = options_.cooldown;
      bad_steps_ = 0;
    }
  }

  StateDict state_dict() const override {
    return {{"best", best_},
            {"bad_steps", bad_steps_},
            {"cooldown", cooldown_},
            {"reductions", reductions_}};
  }
  void check_restore(const StateDict& source) const override {
    source.at("best").as_double();
    for (const char* count : {"bad_steps", "cooldown", "reductions"}) {
      const std::int64_t found = source.at(count).as_int();
      if (found < 0) {
        throw StateError(
            fmt::format("state of on_plateau: expected {} >= 0, found {}", count, found));
      }
    }
  }
  void restore(const StateDict& source) override {
    check_restore(source);
    best_ = source.at("best").as_double();
    bad_steps_ = source.at("bad_steps").as_int();
    cooldown_ = source.at("cooldown").as_int();
    reductions_ = source.at("reductions").as_int();
  }

 private:
  bool better(double metric) const {
    const bool relative = options_.threshold_mode == ThresholdMode::relative;
    if (options_.mode == PlateauMode::min) {
      return metric < (relative ? best_ * (1 - options_.threshold) : best_ - options_.threshold);
    }
    return metric > (relative ? best_ * (1 + options_.threshold) : best_ + options_.threshold);
  }

  OnPlateauOptions options_;
  double best_;
  std::int64_t bad_steps_ = 0;
  std::int64_t cooldown_ = 0;  // steps that are left of it
  std::int64_t reductions_ = 0;
};

}  // namespace

Schedule on_plateau(const OnPlateauOptions& options) {
  const auto check = [](bool valid, std::string_view expectation, auto value) {
    require("on_plateau", valid, expectation, value);
  };
  check(options.factor >= 0 && options.factor < 1, "0 <= factor < 1", options.factor);
  check(options.patience >= 0, "patience >= 0", options.patience);
  if (options.threshold_mode == ThresholdMode::relative) {
    check(options.threshold >= 0 && options.threshold < 1,
          "0 <= threshold < 1 where it is relative", options.threshold);
  } else {
    check(options.threshold >= 0, "threshold >= 0", options.threshold);
  }
  check(options.cooldown >= 0, "cooldown >= 0", options.cooldown);
  check(options.minimum >= 0, "minimum >= 0", options.minimum);
  check(options.eps >= 0, "eps >= 0", options.eps);
  return OnPlateau(options);
}

}  // namespace lockstep::optim::schedule
