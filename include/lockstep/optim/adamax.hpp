#pragma once

#include "lockstep/optim/update_rule.hpp"

#pragma GCC visibility push(default)

namespace lockstep::optim {

struct AdamaxOptions {
  double lr = 2e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;  ///< added to the gradient, times the value
  bool maximize = false;    ///< go uphill

  std::vector<Field> fields();
};

/// Adam with the infinity norm: Kingma, Ba, arXiv:1412.6980, algorithm 2. Slots: exp_avg, exp_inf;
/// counts steps.
class Adamax : public BasicRule<Adamax, AdamaxOptions> {
 public:
  explicit Adamax(const AdamaxOptions& options = {});

  std::string_view name() const override { return "Adamax"; }
  std::span<const std::string_view> slots() const override;
  bool counts_steps() const override { return true; }

  template <class T>
  void step(const UpdateRange<T>& range) const;
};
extern template class BasicRule<Adamax, AdamaxOptions>;

}  // namespace lockstep::optim

#pragma GCC visibility pop
