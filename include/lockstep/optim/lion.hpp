#pragma once

#include "lockstep/optim/update_rule.hpp"

#pragma GCC visibility push(default)

namespace lockstep::optim {

struct LionOptions {
  double lr = 1e-4;
  double beta1 = 0.9;
  double beta2 = 0.99;
  double weight_decay = 0;  ///< takes its share, times lr, off the value itself
  bool maximize = false;    ///< go uphill

  std::vector<Field> fields();
};

/// Steps of equal size in the direction of the sign of the momentum: Chen et al., "Symbolic
/// discovery of optimization algorithms", arXiv:2302.06675. Slot: exp_avg.
class Lion : public BasicRule<Lion, LionOptions> {
 public:
  explicit Lion(const LionOptions& options = {});

  std::string_view name() const override { return "Lion"; }
  std::span<const std::string_view> slots() const override;

  template <class T>
  void step(const UpdateRange<T>& range) const;
};
extern template class BasicRule<Lion, LionOptions>;

}  // namespace lockstep::optim

#pragma GCC visibility pop
