#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "lockstep/tensor/tensor.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

namespace autograd {
struct [[gnu::visibility("hidden")]] VariableState;
}

struct BackwardOptions {
  /// Keep the recorded operations, so that backward can run through them again.
  bool retain_graph = false;
};

/// A handle to a value, its gradient, and the operation that made it. Copies refer to the same
/// variable. Not thread-safe: a graph is built and differentiated by one thread at a time.
class Variable {
 public:
  /// An undefined variable.
  Variable() = default;
  /// A leaf. DTypeError where requires_grad is set on a tensor that is not f32 or f64.
  Variable(Tensor value, bool requires_grad = false);  // NOLINT: a Tensor is a constant Variable

  bool defined() const noexcept { return state_ != nullptr; }
  /// Equal for handles to the same variable, and for no others that live.
  const void* identity() const noexcept { return state_.get(); }
  const Tensor& value() const;
  const Shape& shape() const { return value().shape(); }
  DType dtype() const { return value().dtype(); }
  std::int64_t size() const { return value().size(); }

  bool requires_grad() const;
  /// True for a variable that no recorded operation made.
  bool is_leaf() const;

  /// Whether a backward has reached this leaf since the last zero_grad().
  bool has_grad() const;
  /// The gradient, to read; StateError where there is none.
  const Tensor& grad() const;

  /// Adds the derivative of this variable, which has one element, with respect to every leaf that
  /// requires a gradient to that leaf's gradient. StateError where no leaf does, where its graph
  /// has been used up by an earlier backward, or for more than one element.
  void backward(const BackwardOptions& options = {}) const;

  /// A constant with the same value (and memory).
  Variable detach() const;

  friend bool operator==(const Variable&, const Variable&) = default;

 private:
  friend struct autograd::VariableState;
  std::shared_ptr<autograd::VariableState> state_;
};

/// While one exists, operations on this thread record nothing.
class NoGrad {
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool previous_;
};

namespace autograd {

/// Where an operation's backward puts the gradient of one of its inputs.
class GradientSlot {
 public:
  explicit GradientSlot(VariableState* input) : input_(input) {}

  /// False where nobody needs this gradient: the work can be left out.
  bool wanted() const noexcept { return input_ != nullptr; }

  /// Calls write(gradient, accumulate) with the tensor that holds the input's gradient, where it is
  /// wanted. Where `accumulate` is set, write adds to what is in it; else its contents are
  /// arbitrary.
  template <class Write>
  void receive(Write&& write) {
    if (!wanted()) return;
    bool accumulate = false;
    Tensor& gradient = open(accumulate);
    write(gradient, accumulate);
  }

  /// The gradient is `value`, in the shape of the input or another one of its size. The tensor may
  /// be kept, so the caller must not change it afterwards.
  void pass(const Tensor& value);

 private:
  Tensor& open(bool& accumulate);

  VariableState* input_;
};

/// Computes the gradients of an operation's inputs from the gradient of its result. An input whose
/// slot it leaves alone gets none from it, which is to say zero.
using Backward = std::function<void(const Tensor& gradient, std::span<GradientSlot> inputs)>;

/// The result of an operation, recorded where an input requires a gradient and NoGrad is not in
/// force. User-defined differentiable operations are made with it.
Variable record(Tensor value, std::vector<Variable> inputs, Backward backward);

}  // namespace autograd
}  // namespace lockstep

#pragma GCC visibility pop
