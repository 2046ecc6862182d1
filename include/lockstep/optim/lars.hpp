#pragma once

#include "lockstep/optim/update_rule.hpp"

#pragma GCC visibility push(default)

namespace lockstep::optim {

struct LARSOptions {
  double lr = 0.1;
  double momentum = 0.9;
  double weight_decay = 0;          ///< added to the gradient, times the value
  double trust_coefficient = 1e-3;  ///< length of a step as a share of the parameter's
  double eps = 1e-8;                ///< added to the length of the gradient
  bool nesterov = false;            ///< look ahead along the momentum
  bool adapt = true;                ///< false, for biases and the like: no trust ratio
  bool maximize = false;            ///< go uphill

  std::vector<Field> fields();
};

/// SGD with a rate of each parameter in proportion to its length over that of its gradient, for
/// large batches: You, Gitman, Ginsburg, "Large batch training of convolutional networks",
/// arXiv:1708.03888. Slot, with momentum: momentum_buffer, which does not contain lr.
class LARS : public BasicRule<LARS, LARSOptions> {
 public:
  /// Nesterov needs momentum.
  explicit LARS(const LARSOptions& options = {});

  std::string_view name() const override { return "LARS"; }
  std::span<const std::string_view> slots() const override;
  bool whole_parameters() const override { return options_.adapt; }
  void check() const override;

  template <class T>
  void step(const UpdateRange<T>& range) const;
};
extern template class BasicRule<LARS, LARSOptions>;

}  // namespace lockstep::optim

#pragma GCC visibility pop
