#pragma once

#include "lockstep/optim/update_rule.hpp"

#pragma GCC visibility push(default)

namespace lockstep::optim {

struct ASGDOptions {
  double lr = 1e-2;
  double lambd = 1e-4;      ///< decay of the values
  double alpha = 0.75;      ///< power by which the step size falls
  double t0 = 1e6;          ///< step at which averaging starts
  double weight_decay = 0;  ///< added to the gradient, times the value
  bool maximize = false;    ///< go uphill

  std::vector<Field> fields();
};

/// Averaged stochastic gradient descent: Polyak, Juditsky, "Acceleration of stochastic
/// approximation by averaging", SIAM J. Control Optim. 30, 1992, with the step sizes of Bottou, 2010.
/// Slot: ax, the average of the values; counts steps.
class ASGD : public BasicRule<ASGD, ASGDOptions> {
 public:
  explicit ASGD(const ASGDOptions& options = {});

  std::string_view name() const override { return "ASGD"; }
  std::span<const std::string_view> slots() const override;
  bool counts_steps() const override { return true; }

  template <class T>
  void step(const UpdateRange<T>& range) const;
};
extern template class BasicRule<ASGD, ASGDOptions>;

}  // namespace lockstep::optim

#pragma GCC visibility pop
