#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "lockstep/state/stateful.hpp"

#pragma GCC visibility push(default)

namespace lockstep::optim {

/// A hyper-parameter as a function of the step. Derive from it for a schedule that is none of those
/// below. Most have no state: their value follows from the step alone.
class ScheduleRule : public Stateful {
 public:
  virtual std::unique_ptr<ScheduleRule> clone() const = 0;

  /// The value at a step, from 0, of a hyper-parameter that would be `base` without a schedule.
  virtual double value(double base, std::int64_t step) const = 0;

  /// Whether the step to this number needs a metric.
  virtual bool needs_metric([[maybe_unused]] std::int64_t step) const { return false; }
  /// Takes a metric into account, before value() is asked for this step.
  virtual void observe([[maybe_unused]] double metric, [[maybe_unused]] std::int64_t step) {}

  StateDict state_dict() const override { return {}; }
  /// StateError where there is any state, unless overridden.
  void check_restore(const StateDict& source) const override;
  void restore(const StateDict& source) override { check_restore(source); }
};

/// A schedule, to be passed around by value. Copies have a state of their own.
class Schedule {
 public:
  /// OptionError for nullptr.
  Schedule(std::unique_ptr<ScheduleRule> rule);  // NOLINT: schedules are made from rules
  template <std::derived_from<ScheduleRule> Rule>
  Schedule(Rule rule) : rule_(std::make_unique<Rule>(std::move(rule))) {}  // NOLINT
  Schedule(const Schedule& other) : rule_(other.rule_->clone()) {}
  Schedule(Schedule&&) noexcept = default;
  Schedule& operator=(Schedule other) noexcept {
    rule_.swap(other.rule_);
    return *this;
  }
  ~Schedule() = default;

  double value(double base, std::int64_t step) const { return rule_->value(base, step); }
  ScheduleRule& rule() noexcept { return *rule_; }
  const ScheduleRule& rule() const noexcept { return *rule_; }

 private:
  std::unique_ptr<ScheduleRule> rule_;
};

}  // namespace lockstep::optim

/// The schedules. b is the base value and t the step, from 0. Lengths are in steps. A `minimum` or
/// `maximum` is a value of the hyper-parameter, all else a factor. Each throws an OptionError that
/// names the option where one is out of range; where an option has to be given, its default is out
/// of range.
namespace lockstep::optim::schedule {

struct ConstantOptions {
  double factor = 1.0 / 3;  ///< ≥ 0
  std::int64_t steps = 5;   ///< ≥ 0
};
/// b · factor for the first `steps` steps, then b. ConstantLR of PyTorch, with any factor ≥ 0.
Schedule constant(const ConstantOptions& options = {});

struct StepOptions {
  std::int64_t step_size = 0;  ///< ≥ 1
  double gamma = 0.1;          ///< > 0
};
/// b · gamma^⌊t / step_size⌋. StepLR of PyTorch.
Schedule step(const StepOptions& options);

struct MultiStepOptions {
  std::vector<std::int64_t> milestones = {};  ///< at least one, in order, each ≥ 0
  double gamma = 0.1;                         ///< > 0
};
/// b · gamma^(number of milestones ≤ t). MultiStepLR of PyTorch; one that comes twice counts twice.
Schedule multi_step(MultiStepOptions options);

struct ExponentialOptions {
  double gamma = 0;  ///< > 0
};
/// b · gamma^t. ExponentialLR of PyTorch.
Schedule exponential(const ExponentialOptions& options);

struct LinearOptions {
  double start = 1.0 / 3;  ///< ≥ 0
  double end = 1;          ///< ≥ 0
  std::int64_t steps = 5;  ///< ≥ 1
};
/// b · (start + (end - start) · min(t / steps, 1)). LinearLR of PyTorch, whose factors must be ≤ 1.
Schedule linear(const LinearOptions& options = {});

struct CosineOptions {
  std::int64_t steps = 0;  ///< ≥ 1
  double minimum = 0;      ///< ≥ 0
};
/// minimum + (b - minimum) · (1 + cos(π t / steps)) / 2, which rises again after `steps`.
/// CosineAnnealingLR of PyTorch; Loshchilov, Hutter, "SGDR", arXiv:1608.03983, without restarts.
/// PyTorch computes each value from the one before, so that in a chain the shape of its cosine
/// depends on what the others did; here the value of the schedule before is the base. Where the
/// minimum is 0, the two agree.
Schedule cosine(const CosineOptions& options);

struct CosineRestartsOptions {
  std::int64_t steps = 0;       ///< of the first cycle; ≥ 1
  std::int64_t multiplier = 1;  ///< how much longer each cycle is than the one before; ≥ 1
  double minimum = 0;           ///< ≥ 0
};
/// The cosine from b at the start of a cycle towards the minimum at its end, which is the start of
/// the next: arXiv:1608.03983. CosineAnnealingWarmRestarts of PyTorch.
Schedule cosine_restarts(const CosineRestartsOptions& options);

struct PolynomialOptions {
  std::int64_t steps = 5;  ///< ≥ 1
  double power = 1;        ///< > 0
};
/// b · (1 - min(t / steps, 1))^power. PolynomialLR of PyTorch.
Schedule polynomial(const PolynomialOptions& options = {});

enum class Anneal { cosine, linear };

struct OneCycleOptions {
  double maximum = 0;      ///< > 0
  std::int64_t steps = 0;  ///< of the whole cycle; ≥ 1
  double rising = 0.3;     ///< share of the steps up to the maximum; 0 to 1
  Anneal anneal = Anneal::cosine;
  double div_factor = 25;         ///< maximum / value at step 0; > 0
  double final_div_factor = 1e4;  ///< value at step 0 / value at the end; > 0
  /// Comes down as slowly as it went up, and only then to the end; `rising` is at most 0.5.
  bool three_phase = false;
};
/// From maximum / div_factor up to the maximum at step rising · steps - 1, and down to the end at
/// step steps - 1, whatever b is. OneCycleLR of PyTorch, which gives no values after its `steps`;
/// here the last one stays. Smith, Topin, "Super-convergence", arXiv:1708.07120.
Schedule one_cycle(const OneCycleOptions& options);

struct OneCycleMomentumOptions {
  double minimum = 0.85;   ///< where the learning rate is at its maximum; 0 to `maximum`
  double maximum = 0.95;   ///< at both ends; below 1
  std::int64_t steps = 0;  ///< this and all else as for the learning rate
  double rising = 0.3;
  Anneal anneal = Anneal::cosine;
  bool three_phase = false;
};
/// What OneCycleLR of PyTorch does to the momentum, or to Adam's beta1: down while the learning rate
/// rises, and back. For a Scheduler of the field "momentum" or "beta1".
Schedule one_cycle_momentum(const OneCycleMomentumOptions& options);

struct InverseSqrtOptions {
  std::int64_t warm_up = 0;  ///< ≥ 1
};
/// b · min((t + 1) / warm_up, √(warm_up / (t + 1))): up to b in the first `warm_up` steps, then down.
/// Vaswani and others, "Attention is all you need", arXiv:1706.03762, section 5.3, with b for the
/// largest value, warm_up^-0.5 · d_model^-0.5 there.
Schedule inverse_sqrt(const InverseSqrtOptions& options);

struct WarmUpOptions {
  double start = 0;  ///< ≥ 0
};
/// n · (start + (1 - start) · t / steps) for t < steps, where n is what `next` starts with, and then
/// `next`, whose step 0 is at t = steps. Goyal and others, arXiv:1706.02677, section 2.2. In
/// PyTorch, a SequentialLR of LinearLR and `next`.
Schedule warm_up(std::int64_t steps, Schedule next, const WarmUpOptions& options = {});

/// A schedule, and the step at which the one after it begins, with its own step 0.
struct Phase {
  static constexpr std::int64_t forever = std::numeric_limits<std::int64_t>::max();

  Schedule schedule;
  std::int64_t until = forever;  ///< later than in the phase before; not given in the last phase
};
/// One schedule after the other: sequential({{linear(), 5}, {exponential({.gamma = 0.9})}}).
/// SequentialLR of PyTorch. A metric goes to the schedule that it belongs to, and one that comes
/// with a schedule's step 0 belongs to what was before.
Schedule sequential(std::vector<Phase> phases);

/// All at once: the base of each is the value of the one before it. ChainedScheduler of PyTorch, and
/// the same where each is a factor times the base; for others, see the schedule.
Schedule chained(std::vector<Schedule> schedules);

enum class PlateauMode { min, max };  ///< which metric is better: the lower or the higher one
enum class ThresholdMode { relative, absolute };

struct OnPlateauOptions {
  PlateauMode mode = PlateauMode::min;
  double factor = 0.1;         ///< 0 ≤ factor < 1
  std::int64_t patience = 10;  ///< steps without improvement that are put up with; ≥ 0
  double threshold = 1e-4;     ///< what a metric must be better by; ≥ 0, and < 1 if relative
  ThresholdMode threshold_mode = ThresholdMode::relative;  ///< relative to the best one
  std::int64_t cooldown = 0;  ///< steps after a reduction in which no metric counts as bad; ≥ 0
  double minimum = 0;         ///< ≥ 0
  double eps = 1e-8;          ///< least change of the value; a smaller one is left out; ≥ 0
};
/// v → max(v · factor, minimum), from v = b, each time that the metric has not become better for
/// more than `patience` steps. ReduceLROnPlateau of PyTorch: a metric that is NaN is not better, and
/// a relative threshold is meant for metrics above 0. In a chain, all reductions so far apply to the
/// value of the schedule before.
///
/// State: "best", "bad_steps", "cooldown" and "reductions".
Schedule on_plateau(const OnPlateauOptions& options = {});

/// b · factor(t). LambdaLR of PyTorch. The function must give the same on all ranks, and in a run
/// that is resumed; nothing of it is saved. OptionError where it is empty.
Schedule function(std::function<double(std::int64_t step)> factor);

}  // namespace lockstep::optim::schedule

#pragma GCC visibility pop
