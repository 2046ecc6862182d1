#pragma once

#include "lockstep/optim/update_rule.hpp"

namespace lockstep::optim {

struct AdamOptions {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;  ///< added to the gradient, times the value

  std::vector<Field> fields() {
    return {{"lr", &lr},
            {"beta1", &beta1},
            {"beta2", &beta2},
            {"eps", &eps},
            {"weight_decay", &weight_decay}};
  }
};

/// Kingma, Ba, "Adam: a method for stochastic optimization", arXiv:1412.6980.
/// Slots: exp_avg, exp_avg_sq; counts steps.
class Adam : public BasicRule<Adam, AdamOptions> {
 public:
  /// OptionError unless lr ≥ 0, 0 ≤ beta < 1, eps > 0 and weight_decay ≥ 0.
  explicit Adam(const AdamOptions& options = {});

  std::string_view name() const override { return "Adam"; }
  std::span<const std::string_view> slots() const override;
  bool counts_steps() const override { return true; }
  void check() const override;

  template <class T>
  void step(const UpdateRange<T>& range) const;
};

struct AdamWOptions {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 1e-2;  ///< takes its share, times lr, off the value itself

  std::vector<Field> fields() {
    return {{"lr", &lr},
            {"beta1", &beta1},
            {"beta2", &beta2},
            {"eps", &eps},
            {"weight_decay", &weight_decay}};
  }
};

/// Adam with decoupled weight decay: Loshchilov, Hutter, arXiv:1711.05101.
/// Slots: exp_avg, exp_avg_sq; counts steps.
class AdamW : public BasicRule<AdamW, AdamWOptions> {
 public:
  /// OptionError as for Adam.
  explicit AdamW(const AdamWOptions& options = {});

  std::string_view name() const override { return "AdamW"; }
  std::span<const std::string_view> slots() const override;
  bool counts_steps() const override { return true; }
  void check() const override;

  template <class T>
  void step(const UpdateRange<T>& range) const;
};

}  // namespace lockstep::optim
