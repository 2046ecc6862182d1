#pragma once

#include "lockstep/optim/update_rule.hpp"

namespace lockstep::optim {

struct SGDOptions {
  double lr = 1e-3;
  double momentum = 0;
  double dampening = 0;
  double weight_decay = 0;
  bool nesterov = false;

  std::vector<Field> fields() {
    return {{"lr", &lr},
            {"momentum", &momentum},
            {"dampening", &dampening},
            {"weight_decay", &weight_decay},
            {"nesterov", &nesterov}};
  }
};

/// Stochastic gradient descent, with momentum as in PyTorch: the first momentum of a parameter is
/// its gradient, undampened. Slot, with momentum: momentum_buffer. Sutskever, Martens, Dahl,
/// Hinton, "On the importance of initialization and momentum in deep learning", ICML 2013.
class SGD : public BasicRule<SGD, SGDOptions> {
 public:
  /// OptionError for a negative or NaN field, or Nesterov with dampening or without momentum.
  explicit SGD(const SGDOptions& options = {});

  std::string_view name() const override { return "SGD"; }
  std::span<const std::string_view> slots() const override;
  bool counts_steps() const override { return false; }
  void check() const override;

  template <class T>
  void step(const UpdateRange<T>& range) const;
};

}  // namespace lockstep::optim
