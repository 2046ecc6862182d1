#pragma once

#include "lockstep/optim/update_rule.hpp"

#pragma GCC visibility push(default)

namespace lockstep::optim {

struct NAdamOptions {
  double lr = 2e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;       ///< added to the gradient, times the value
  double momentum_decay = 4e-3;  ///< psi: how fast beta1 warms up
  bool maximize = false;         ///< go uphill

  std::vector<Field> fields();
};

/// Adam with Nesterov momentum: Dozat, "Incorporating Nesterov momentum into Adam", ICLR workshop
/// 2016, algorithm 2. Slots: exp_avg, exp_avg_sq; scalar: mu_product, the product of the momentum
/// factors so far; counts steps.
class NAdam : public BasicRule<NAdam, NAdamOptions> {
 public:
  explicit NAdam(const NAdamOptions& options = {});

  std::string_view name() const override { return "NAdam"; }
  std::span<const std::string_view> slots() const override;
  bool counts_steps() const override { return true; }
  std::span<const std::string_view> scalars() const override;

  template <class T>
  void step(const UpdateRange<T>& range) const;
};
extern template class BasicRule<NAdam, NAdamOptions>;

}  // namespace lockstep::optim

#pragma GCC visibility pop
