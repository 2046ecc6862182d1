#pragma once

#include <cstdint>

#include "lockstep/autograd/variable.hpp"
#include "lockstep/optim/keyed_optimizer.hpp"
#include "lockstep/state/stateful.hpp"

#pragma GCC visibility push(default)

namespace lockstep::optim {

/// Factors that are powers of two change no bit of what is trained, as long as nothing overflows or
/// underflows.
struct LossScaleOptions {
  double initial = 65536;
  double growth = 2;     ///< factor after growth_interval steps; at least 1
  double backoff = 0.5;  ///< factor after a gradient that is not finite; 0 < backoff < 1
  std::int64_t growth_interval = 2000;  ///< 0 for a scale that stays as it is
  double min = 0x1p-14;                 ///< no smaller,
  double max = 0x1p+24;                 ///< and no larger than these

  /// OptionError for one outside its range, or an initial scale outside [min, max].
  void check() const;
};

/// Dynamic loss scaling: Micikevicius et al., "Mixed precision training", arXiv:1710.03740. The loss is
/// multiplied with a scale, so that small gradients do not underflow, and the optimizers divide by it.
/// A step whose gradients are not finite is skipped, and the scale backs off; after
/// growth_interval steps without one it grows.
///
///     optim::LossScale scale;
///     for (…) {
///       optimizer.zero_grad();
///       scale.scale(loss(batch)).backward();
///       scale.step(optimizer);
///       scale.update();
///     }
///
/// Nothing here is collective: gradients that were reduced are the same on all ranks, and so is what
/// comes of them, even where only one rank's loss has overflowed.
///
/// state_dict() is {"scale": 65536.0, "steps": 7}, of after the last update().
class LossScale : public Stateful {
 public:
  explicit LossScale(const LossScaleOptions& options = {});

  double value() const noexcept { return scale_; }
  /// The loss times the scale.
  Variable scale(const Variable& loss) const;

  /// A step with gradients divided by the scale, which is skipped where one is not finite, whatever the
  /// optimizer's clipping says; a limit there is one on the divided gradients. There may be
  /// several optimizers in a step of training.
  StepReport step(KeyedOptimizer& optimizer);

  /// Ends a step of training: the scale backs off where any optimizer's step was skipped, and may grow
  /// where none was. StateError where no optimizer has stepped since the last one.
  void update();

  StateDict state_dict() const override;
  /// StateError for a scale outside [min, max], or a negative number of steps.
  void check_restore(const StateDict& source) const override;
  void restore(const StateDict& source) override;

 private:
  enum class Outcome { none, applied, skipped };

  LossScaleOptions options_;
  double scale_;
  std::int64_t steps_ = 0;           // without a skipped one, since the scale has changed
  Outcome outcome_ = Outcome::none;  // of the optimizers since the last update
};

}  // namespace lockstep::optim

#pragma GCC visibility pop
