#include "lockstep/autograd/activations.hpp"

#include <fmt/format.h>

#include <cstdint>

#include "autograd/elementwise.hpp"
#include "autograd/state.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/tensor/activation.hpp"
#include "tensor/activations.hpp"
#include "tensor/dispatch.hpp"
#include "tensor/kernels.hpp"

namespace lockstep {

using autograd::record;
using autograd::Slots;

namespace {

enum class Keep { input, result };

// y = f(x), by forward(n, parameters, x, y) and backward(n, parameters, x or y, dy, dx, accumulate).
template <class Forward, class Backward, class... Parameters>
Variable each(const Variable& x, Forward forward, Keep keep, Backward backward,
              Parameters... parameters) {
  Tensor result = Tensor::empty(x.shape(), x.dtype());
  dispatch_kernel(x.dtype(), [&]<class T>() {
    forward(x.size(), static_cast<T>(parameters)..., x.value().data<T>(), result.data<T>());
  });
  const auto slope = [kept = keep == Keep::input ? x.value() : result, backward, parameters...](
                         const Tensor& gradient, Slots slots) {
    slots[0].receive([&](Tensor& target, bool accumulate) {
      dispatch_kernel(gradient.dtype(), [&]<class T>() {
        backward(kept.size(), static_cast<T>(parameters)..., kept.data<T>(), gradient.data<T>(),
                 target.data<T>(), accumulate);
      });
    });
  };
  return record(result, {x}, slope);
}

Variable activated(const Variable& x, Activation f) {
  return each(
      x, [f](auto... of) { kernels::activate(f, of...); }, Keep::result,
      [f](auto... of) { kernels::activation_gradient(f, of...); });
}

}  // namespace

Variable relu(const Variable& x) { return activated(x, Activation::relu); }
Variable tanh(const Variable& x) { return activated(x, Activation::tanh); }
Variable sigmoid(const Variable& x) { return activated(x, Activation::sigmoid); }

namespace {

// y = f(x), by kernel(n, x, y, slope), which gives the derivatives as well where they will be needed.
template <class Kernel>
Variable each_with_slope(const Variable& x, Kernel kernel) {
  Tensor result = Tensor::empty(x.shape(), x.dtype()), slope;
  if (autograd::is_recorded(x)) slope = Tensor::empty(x.shape(), x.dtype());
  dispatch_kernel(x.dtype(), [&]<class T>() {
    kernel(x.size(), x.value().data<T>(), result.data<T>(),
           slope.defined() ? slope.data<T>() : nullptr);
  });
  return record(result, {x}, [slope](const Tensor& gradient, Slots slots) {
    autograd::receive(
        slots[0], [](auto g, auto derivative) { return g * derivative; }, gradient, slope);
  });
}

}  // namespace

Variable gelu(const Variable& x) {
  return each_with_slope(x, [](auto... of) { kernels::gelu(of...); });
}
Variable silu(const Variable& x) {
  return each_with_slope(x, [](auto... of) { kernels::silu(of...); });
}

Variable softplus(const Variable& x, double beta) {
  if (!(beta > 0)) {
    throw OptionError(fmt::format("softplus: expected beta > 0, found {}", beta));
  }
  return each(
      x, [](auto... of) { kernels::softplus(of...); }, Keep::input,
      [](auto... of) { kernels::softplus_gradient(of...); }, beta);
}

Variable leaky_relu(const Variable& x, double negative_slope) {
  return each(
      x, [](auto... of) { kernels::leaky_relu(of...); }, Keep::input,
      [](auto... of) { kernels::leaky_relu_gradient(of...); }, negative_slope);
}

Variable elu(const Variable& x, double alpha) {
  return each(
      x, [](auto... of) { kernels::elu(of...); }, Keep::input,
      [](auto... of) { kernels::elu_gradient(of...); }, alpha);
}

namespace {

// y = f(x) of each row, by forward(rows, length, x, y) and backward(rows, length, y, dy, dx, accumulate).
template <class Forward, class Backward>
Variable by_rows(const char* what, const Variable& x, Forward forward, Backward backward) {
  const Shape& shape = x.shape();
  if (shape.rank() == 0) {
    throw ShapeError(fmt::format("{}: expected at least one axis, found shape ()", what));
  }
  const std::int64_t length = shape[shape.rank() - 1], rows = length == 0 ? 0 : x.size() / length;
  Tensor result = Tensor::empty(shape, x.dtype());
  dispatch_kernel(x.dtype(),
                  [&]<class T>() { forward(rows, length, x.value().data<T>(), result.data<T>()); });
  return record(result, {x}, [result, rows, length, backward](const Tensor& gradient, Slots slots) {
    slots[0].receive([&](Tensor& target, bool accumulate) {
      dispatch_kernel(gradient.dtype(), [&]<class T>() {
        backward(rows, length, result.data<T>(), gradient.data<T>(), target.data<T>(), accumulate);
      });
    });
  });
}

}  // namespace

Variable softmax(const Variable& x) {
  return by_rows(
      "softmax", x, [](auto... of) { kernels::softmax(of...); },
      [](auto... of) { kernels::softmax_gradient(of...); });
}

Variable log_softmax(const Variable& x) {
  return by_rows(
      "log_softmax", x, [](auto... of) { kernels::log_softmax(of...); },
      [](auto... of) { kernels::log_softmax_gradient(of...); });
}

}  // namespace lockstep
