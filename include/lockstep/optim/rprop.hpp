#pragma once

#include "lockstep/optim/update_rule.hpp"

#pragma GCC visibility push(default)

namespace lockstep::optim {

struct RpropOptions {
  double lr = 1e-2;        ///< the first step size
  double eta_minus = 0.5;  ///< factor where the sign of the gradient changed
  double eta_plus = 1.2;   ///< factor where it stayed
  double step_min = 1e-6;
  double step_max = 50;
  bool maximize = false;  ///< go uphill

  std::vector<Field> fields();
};

/// Resilient backpropagation, which uses the signs of the gradient alone; for full batches.
/// Riedmiller, Braun, "A direct adaptive method for faster backpropagation learning: the RPROP
/// algorithm", ICNN 1993. Slots: prev, the gradient before, and step_size.
class Rprop : public BasicRule<Rprop, RpropOptions> {
 public:
  /// OptionError unless eta_minus < 1 < eta_plus and step_min <= step_max.
  explicit Rprop(const RpropOptions& options = {});

  std::string_view name() const override { return "Rprop"; }
  std::span<const std::string_view> slots() const override;
  void check() const override;
  double initial_value(std::size_t slot) const override;

  template <class T>
  void step(const UpdateRange<T>& range) const;
};
extern template class BasicRule<Rprop, RpropOptions>;

}  // namespace lockstep::optim

#pragma GCC visibility pop
