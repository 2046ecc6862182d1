#pragma once

#include "lockstep/optim/update_rule.hpp"

#pragma GCC visibility push(default)

namespace lockstep::optim {

struct SGDOptions {
  double lr = 1e-3;
  double momentum = 0;
  double dampening = 0;
  double weight_decay = 0;  ///< added to the gradient, times the value
  bool nesterov = false;    ///< look ahead along the momentum
  bool maximize = false;    ///< go uphill

  std::vector<Field> fields();
};

/// Stochastic gradient descent, with momentum as in PyTorch: the first momentum of a parameter is
/// its gradient, undampened. Slot, with momentum: momentum_buffer. Sutskever, Martens, Dahl,
/// Hinton, "On the importance of initialization and momentum in deep learning", ICML 2013.
class SGD : public BasicRule<SGD, SGDOptions> {
 public:
  /// Nesterov needs momentum, and no dampening.
  explicit SGD(const SGDOptions& options = {});

  std::string_view name() const override { return "SGD"; }
  std::span<const std::string_view> slots() const override;
  void check() const override;

  template <class T>
  void step(const UpdateRange<T>& range) const;
};
extern template class BasicRule<SGD, SGDOptions>;

}  // namespace lockstep::optim

#pragma GCC visibility pop
