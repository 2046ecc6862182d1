#pragma once

#include "lockstep/optim/update_rule.hpp"

#pragma GCC visibility push(default)

namespace lockstep::optim {

struct RMSpropOptions {
  double lr = 1e-2;
  double alpha = 0.99;  ///< decay of the averages
  double eps = 1e-8;
  double weight_decay = 0;  ///< added to the gradient, times the value
  double momentum = 0;
  bool centered = false;  ///< divide by the variance of the gradient
  bool maximize = false;  ///< go uphill

  std::vector<Field> fields();
};

/// Hinton, "Neural networks for machine learning", lecture 6e, 2012; centered: Graves, "Generating
/// sequences with recurrent neural networks", arXiv:1308.0850. Slots: square_avg; grad_avg where
/// centered; momentum_buffer with momentum.
class RMSprop : public BasicRule<RMSprop, RMSpropOptions> {
 public:
  explicit RMSprop(const RMSpropOptions& options = {});

  std::string_view name() const override { return "RMSprop"; }
  std::span<const std::string_view> slots() const override;

  template <class T>
  void step(const UpdateRange<T>& range) const;
};
extern template class BasicRule<RMSprop, RMSpropOptions>;

}  // namespace lockstep::optim

#pragma GCC visibility pop
