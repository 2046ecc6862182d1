#pragma once

#include "lockstep/optim/update_rule.hpp"

#pragma GCC visibility push(default)

namespace lockstep::optim {

struct LAMBOptions {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-6;
  double weight_decay = 0;  ///< takes part in the trust ratio
  bool adapt = true;        ///< false, for biases and the like: no trust ratio
  bool maximize = false;    ///< go uphill

  std::vector<Field> fields();
};

/// Adam with a step of each parameter as long as the parameter itself, times lr, for large batches:
/// You et al., "Large batch optimization for deep learning: training BERT in 76 minutes",
/// arXiv:1904.00962, algorithm 2, with the identity for its function φ. Slots: exp_avg, exp_avg_sq;
/// counts steps.
class LAMB : public BasicRule<LAMB, LAMBOptions> {
 public:
  explicit LAMB(const LAMBOptions& options = {});

  std::string_view name() const override { return "LAMB"; }
  std::span<const std::string_view> slots() const override;
  bool counts_steps() const override { return true; }
  bool whole_parameters() const override { return options_.adapt; }

  template <class T>
  void step(const UpdateRange<T>& range) const;
};
extern template class BasicRule<LAMB, LAMBOptions>;

}  // namespace lockstep::optim

#pragma GCC visibility pop
