#pragma once

#include <cstdint>
#include <span>

#include "lockstep/autograd/variable.hpp"
#include "tensor/dispatch.hpp"

// What differentiable operations that work on each element by itself are made of.
namespace lockstep::autograd {

using Slots = std::span<GradientSlot>;

/// result[i] = f(inputs[i]...)
template <class F, class... Inputs>
Tensor elementwise(F f, const Tensor& first, const Inputs&... others) {
  Tensor result = Tensor::empty(first.shape(), first.dtype());
  dispatch_kernel(first.dtype(), [&]<class T>() {
    const auto apply = [n = first.size(), f, out = result.data<T>()](const auto*... in) {
      for (std::int64_t i = 0; i < n; ++i) out[i] = static_cast<T>(f(in[i]...));
    };
    apply(first.data<T>(), others.template data<T>()...);
  });
  return result;
}

/// gradient[i] (+)= f(inputs[i]...)
template <class F, class... Inputs>
void receive(GradientSlot& slot, F f, const Inputs&... inputs) {
  if (!slot.wanted()) return;
  slot.receive([&](Tensor& gradient, bool accumulate) {
    dispatch_kernel(gradient.dtype(), [&]<class T>() {
      const auto apply = [n = gradient.size(), f, accumulate,
                          out = gradient.data<T>()](const auto*... in) {
        if (accumulate) {
          for (std::int64_t i = 0; i < n; ++i) out[i] += static_cast<T>(f(in[i]...));
        } else {
          for (std::int64_t i = 0; i < n; ++i) out[i] = static_cast<T>(f(in[i]...));
        }
      };
      apply(inputs.template data<T>()...);
    });
  });
}

/// A function of one variable whose derivative is a function of its input and its result.
template <class Derivative>
Variable unary(const Variable& x, const Tensor& result, Derivative derivative) {
  return record(
      result, {x}, [input = x.value(), result, derivative](const Tensor& gradient, Slots slots) {
        receive(
            slots[0], [derivative](auto g, auto v, auto y) { return g * derivative(v, y); },
            gradient, input, result);
      });
}

/// The factor of a mean; that of nothing is 0.
inline double one_over(std::int64_t count) {
  return count == 0 ? 0.0 : 1.0 / static_cast<double>(count);
}

}  // namespace lockstep::autograd
