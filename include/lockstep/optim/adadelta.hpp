#pragma once

#include "lockstep/optim/update_rule.hpp"

#pragma GCC visibility push(default)

namespace lockstep::optim {

struct AdadeltaOptions {
  double lr = 1.0;
  double rho = 0.9;  ///< decay of both averages
  double eps = 1e-6;
  double weight_decay = 0;  ///< added to the gradient, times the value
  bool maximize = false;    ///< go uphill

  std::vector<Field> fields();
};

/// Zeiler, "ADADELTA: an adaptive learning rate method", arXiv:1212.5701. Slots: square_avg, of
/// gradients, and acc_delta, of squared changes.
class Adadelta : public BasicRule<Adadelta, AdadeltaOptions> {
 public:
  explicit Adadelta(const AdadeltaOptions& options = {});

  std::string_view name() const override { return "Adadelta"; }
  std::span<const std::string_view> slots() const override;

  template <class T>
  void step(const UpdateRange<T>& range) const;
};
extern template class BasicRule<Adadelta, AdadeltaOptions>;

}  // namespace lockstep::optim

#pragma GCC visibility pop
