#pragma once

#include "lockstep/optim/update_rule.hpp"

#pragma GCC visibility push(default)

namespace lockstep::optim {

struct AdagradOptions {
  double lr = 1e-2;
  double lr_decay = 0;                   ///< lr / (1 + lr_decay · steps before)
  double weight_decay = 0;               ///< added to the gradient, times the value
  double initial_accumulator_value = 0;  ///< of the slot
  double eps = 1e-10;
  bool maximize = false;  ///< go uphill

  std::vector<Field> fields();
};

/// Duchi, Hazan, Singer, "Adaptive subgradient methods for online learning and stochastic
/// optimization", JMLR 12, 2011. Slot: sum, of squared gradients; counts steps.
class Adagrad : public BasicRule<Adagrad, AdagradOptions> {
 public:
  explicit Adagrad(const AdagradOptions& options = {});

  std::string_view name() const override { return "Adagrad"; }
  std::span<const std::string_view> slots() const override;
  bool counts_steps() const override { return true; }
  double initial_value(std::size_t slot) const override;

  template <class T>
  void step(const UpdateRange<T>& range) const;
};
extern template class BasicRule<Adagrad, AdagradOptions>;

}  // namespace lockstep::optim

#pragma GCC visibility pop
