#pragma once

#include "lockstep/optim/update_rule.hpp"

#pragma GCC visibility push(default)

namespace lockstep::optim {

struct RAdamOptions {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;  ///< added to the gradient, times the value
  bool maximize = false;    ///< go uphill

  std::vector<Field> fields();
};

/// Rectified Adam: momentum alone while too few steps were made to know the variance; then Adam,
/// scaled by its certainty. Liu et al., "On the variance of the adaptive learning rate and beyond",
/// arXiv:1908.03265, algorithm 2. Slots: exp_avg, exp_avg_sq; counts steps.
class RAdam : public BasicRule<RAdam, RAdamOptions> {
 public:
  explicit RAdam(const RAdamOptions& options = {});

  std::string_view name() const override { return "RAdam"; }
  std::span<const std::string_view> slots() const override;
  bool counts_steps() const override { return true; }

  template <class T>
  void step(const UpdateRange<T>& range) const;
};
extern template class BasicRule<RAdam, RAdamOptions>;

}  // namespace lockstep::optim

#pragma GCC visibility pop
