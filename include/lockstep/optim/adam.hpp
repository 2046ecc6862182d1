#pragma once

#include "lockstep/optim/update_rule.hpp"

#pragma GCC visibility push(default)

namespace lockstep::optim {

struct AdamOptions {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;  ///< added to the gradient, times the value
  bool amsgrad = false;     ///< divide by the largest second moment so far
  bool maximize = false;    ///< go uphill

  std::vector<Field> fields();
};

/// Kingma, Ba, "Adam: a method for stochastic optimization", arXiv:1412.6980; AMSGrad: Reddi, Kale,
/// Kumar, "On the convergence of Adam and beyond", arXiv:1904.09237. Slots: exp_avg, exp_avg_sq, and
/// max_exp_avg_sq with amsgrad; counts steps.
class Adam : public BasicRule<Adam, AdamOptions> {
 public:
  explicit Adam(const AdamOptions& options = {});

  std::string_view name() const override { return "Adam"; }
  std::span<const std::string_view> slots() const override;
  bool counts_steps() const override { return true; }

  template <class T>
  void step(const UpdateRange<T>& range) const;
};
extern template class BasicRule<Adam, AdamOptions>;

struct AdamWOptions {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 1e-2;  ///< takes its share, times lr, off the value itself
  bool amsgrad = false;        ///< divide by the largest second moment so far
  bool maximize = false;       ///< go uphill

  std::vector<Field> fields();
};

/// Adam with decoupled weight decay: Loshchilov, Hutter, arXiv:1711.05101. Slots as for Adam.
class AdamW : public BasicRule<AdamW, AdamWOptions> {
 public:
  explicit AdamW(const AdamWOptions& options = {});

  std::string_view name() const override { return "AdamW"; }
  std::span<const std::string_view> slots() const override;
  bool counts_steps() const override { return true; }

  template <class T>
  void step(const UpdateRange<T>& range) const;
};
extern template class BasicRule<AdamW, AdamWOptions>;

}  // namespace lockstep::optim

#pragma GCC visibility pop
