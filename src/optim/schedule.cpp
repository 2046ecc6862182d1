#include "lockstep/optim/schedule.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "optim/schedule_checks.hpp"

namespace lockstep::optim {

void ScheduleRule::check_restore(const StateDict& source) const {
  if (source.empty()) return;
  throw StateError(fmt::format("expected no state of a schedule that keeps none, found '{}'",
                               source.begin()->first));
}

Schedule::Schedule(std::unique_ptr<ScheduleRule> rule) : rule_(std::move(rule)) {
  if (rule_ == nullptr) throw OptionError("expected a schedule, found none");
}

namespace schedule {
namespace {

// A schedule without state: its value, as a function of the base and the step.
template <class F>
class Formula : public ScheduleRule {
 public:
  explicit Formula(F formula) : formula_(std::move(formula)) {}
  std::unique_ptr<ScheduleRule> clone() const override { return std::make_unique<Formula>(*this); }
  double value(double base, std::int64_t step) const override { return formula_(base, step); }

 private:
  F formula_;
};

double ratio(std::int64_t a, std::int64_t b) {
  return static_cast<double>(a) / static_cast<double>(b);
}

// From `start` at share 0 to `end` at share 1.
double anneal_cosine(double start, double end, double share) {
  return end + (start - end) * (1 + std::cos(std::numbers::pi * share)) / 2;
}

double anneal_linear(double start, double end, double share) {
  return start + (end - start) * share;
}

// The shape that learning rate and momentum have in common: from one value to the next.
class OneCycle {
 public:
  OneCycle(std::string_view name, const OneCycleOptions& options)
      : linear_(options.anneal == Anneal::linear) {
    require(name, options.steps >= 1, "steps >= 1", options.steps);
    if (options.three_phase) {
      require(name, options.rising >= 0 && options.rising <= 0.5,
              "0 <= rising <= 0.5 with three_phase", options.rising);
    } else {
      require(name, options.rising >= 0 && options.rising <= 1, "0 <= rising <= 1", options.rising);
    }
    const double turn = options.rising * static_cast<double>(options.steps) - 1;
    ends_ = {turn, static_cast<double>(options.steps - 1)};
    if (options.three_phase) ends_.insert(ends_.begin() + 1, 2 * turn);
  }

  // `values` has one more element than there are phases.
  double value(const std::vector<double>& values, std::int64_t step) const {
    const auto at = static_cast<double>(step);
    std::size_t phase = 0;
    while (phase + 1 < ends_.size() && at > ends_[phase]) ++phase;
    const double start = phase == 0 ? 0 : ends_[phase - 1];
    const double share = at < ends_[phase] ? (at - start) / (ends_[phase] - start) : 1;
    return (linear_ ? anneal_linear : anneal_cosine)(values[phase], values[phase + 1], share);
  }

 private:
  bool linear_;
  std::vector<double> ends_;  // the steps, not always whole, at which the phases end
};

}  // namespace

Schedule constant(const ConstantOptions& options) {
  require("constant", options.factor >= 0, "factor >= 0", options.factor);
  require("constant", options.steps >= 0, "steps >= 0", options.steps);
  return Formula([options](double base, std::int64_t step) {
    return step < options.steps ? base * options.factor : base;
  });
}

Schedule step(const StepOptions& options) {
  require("step", options.step_size >= 1, "step_size >= 1", options.step_size);
  require("step", options.gamma > 0, "gamma > 0", options.gamma);
  return Formula([options](double base, std::int64_t step) {
    return base * std::pow(options.gamma, static_cast<double>(step / options.step_size));
  });
}

Schedule multi_step(MultiStepOptions options) {
  const std::vector<std::int64_t>& milestones = options.milestones;
  if (milestones.empty()) {
    throw OptionError("schedule multi_step: expected at least one of milestones, found none");
  }
  require("multi_step", milestones.front() >= 0, "milestones >= 0", milestones.front());
  const auto fall = std::is_sorted_until(milestones.begin(), milestones.end());
  if (fall != milestones.end()) {
    throw OptionError(
        fmt::format("schedule multi_step: expected milestones in increasing order, found {} after "
                    "{}",
                    *fall, *(fall - 1)));
  }
  require("multi_step", options.gamma > 0, "gamma > 0", options.gamma);
  return Formula([options = std::move(options)](double base, std::int64_t step) {
    const std::vector<std::int64_t>& milestones = options.milestones;
    const auto passed =
        std::upper_bound(milestones.begin(), milestones.end(), step) - milestones.begin();
    return base * std::pow(options.gamma, static_cast<double>(passed));
  });
}

Schedule exponential(const ExponentialOptions& options) {
  require("exponential", options.gamma > 0, "gamma > 0", options.gamma);
  return Formula([options](double base, std::int64_t step) {
    return base * std::pow(options.gamma, static_cast<double>(step));
  });
}

Schedule linear(const LinearOptions& options) {
  require("linear", options.start >= 0, "start >= 0", options.start);
  require("linear", options.end >= 0, "end >= 0", options.end);
  require("linear", options.steps >= 1, "steps >= 1", options.steps);
  return Formula([options](double base, std::int64_t step) {
    if (step >= options.steps) return base * options.end;
    return base * anneal_linear(options.start, options.end, ratio(step, options.steps));
  });
}

Schedule cosine(const CosineOptions& options) {
  require("cosine", options.steps >= 1, "steps >= 1", options.steps);
  require("cosine", options.minimum >= 0, "minimum >= 0", options.minimum);
  return Formula([options](double base, std::int64_t step) {
    return anneal_cosine(base, options.minimum, ratio(step, options.steps));
  });
}

Schedule cosine_restarts(const CosineRestartsOptions& options) {
  require("cosine_restarts", options.steps >= 1, "steps >= 1", options.steps);
  require("cosine_restarts", options.multiplier >= 1, "multiplier >= 1", options.multiplier);
  require("cosine_restarts", options.minimum >= 0, "minimum >= 0", options.minimum);
  return Formula([options](double base, std::int64_t step) {
    std::int64_t length = options.steps, in_cycle = step;
    if (options.multiplier == 1) {
      in_cycle %= length;
    } else {
      while (in_cycle >= length) {
        in_cycle -= length;
        // A longer cycle than all the steps that there can be need not be exact.
        if (length > Phase::forever / options.multiplier) {
          length = Phase::forever;
        } else {
          length *= options.multiplier;
        }
      }
    }
    return anneal_cosine(base, options.minimum, ratio(in_cycle, length));
  });
}

Schedule polynomial(const PolynomialOptions& options) {
  require("polynomial", options.steps >= 1, "steps >= 1", options.steps);
  require("polynomial", options.power > 0, "power > 0", options.power);
  return Formula([options](double base, std::int64_t step) {
    return base * std::pow(1 - ratio(std::min(step, options.steps), options.steps), options.power);
  });
}

Schedule one_cycle(const OneCycleOptions& options) {
  require("one_cycle", options.maximum > 0, "maximum > 0", options.maximum);
  require("one_cycle", options.div_factor > 0, "div_factor > 0", options.div_factor);
  require("one_cycle", options.final_div_factor > 0, "final_div_factor > 0",
          options.final_div_factor);
  const double start = options.maximum / options.div_factor;
  std::vector<double> values{start, options.maximum, start / options.final_div_factor};
  if (options.three_phase) values.insert(values.begin() + 2, start);
  return Formula([cycle = OneCycle("one_cycle", options), values](double, std::int64_t step) {
    return cycle.value(values, step);
  });
}

Schedule one_cycle_momentum(const OneCycleMomentumOptions& options) {
  constexpr std::string_view name = "one_cycle_momentum";
  require(name, options.maximum >= 0 && options.maximum < 1, "0 <= maximum < 1", options.maximum);
  require(name, options.minimum >= 0 && options.minimum <= options.maximum,
          "0 <= minimum <= maximum", options.minimum);
  std::vector<double> values{options.maximum, options.minimum, options.maximum};
  if (options.three_phase) values.push_back(options.maximum);
  const OneCycle cycle(name, {.steps = options.steps,
                              .rising = options.rising,
                              .anneal = options.anneal,
                              .three_phase = options.three_phase});
  return Formula([cycle, values](double, std::int64_t step) { return cycle.value(values, step); });
}

Schedule inverse_sqrt(const InverseSqrtOptions& options) {
  require("inverse_sqrt", options.warm_up >= 1, "warm_up >= 1", options.warm_up);
  return Formula([options](double base, std::int64_t step) {
    return base *
           std::min(ratio(step + 1, options.warm_up), std::sqrt(ratio(options.warm_up, step + 1)));
  });
}

Schedule function(std::function<double(std::int64_t)> factor) {
  if (factor == nullptr) throw OptionError("schedule function: expected a function, found none");
  return Formula(
      [factor = std::move(factor)](double base, std::int64_t step) { return base * factor(step); });
}

}  // namespace schedule
}  // namespace lockstep::optim
