#include "lockstep/autograd/activations.hpp"

#include <fmt/format.h>

#include <cmath>
#include <numbers>

#include "autograd/elementwise.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/tensor/activation.hpp"
#include "tensor/kernels.hpp"

namespace lockstep {

using autograd::elementwise;
using autograd::record;
using autograd::Slots;
using autograd::unary;

namespace {

Tensor activate(const Variable& x, Activation f) {
  Tensor result = Tensor::empty(x.shape(), x.dtype());
  dispatch_floating(x.dtype(), [&]<class T>() {
    kernels::activate(f, x.size(), x.value().data<T>(), result.data<T>());
  });
  return result;
}

Variable activated(const Variable& x, Activation f) {
  const Tensor result = activate(x, f);
  return record(result, {x}, [result, f](const Tensor& gradient, Slots slots) {
    slots[0].receive([&](Tensor& target, bool accumulate) {
      dispatch_floating(gradient.dtype(), [&]<class T>() {
        kernels::activation_gradient(f, result.size(), result.data<T>(), gradient.data<T>(),
                                     target.data<T>(), accumulate);
      });
    });
  });
}

}  // namespace

Variable relu(const Variable& x) { return activated(x, Activation::relu); }
Variable tanh(const Variable& x) { return activated(x, Activation::tanh); }
Variable sigmoid(const Variable& x) { return activated(x, Activation::sigmoid); }

Variable gelu(const Variable& x) {
  const auto distribution = []<class T>(T v) {
    return T{0.5} * (1 + std::erf(v / std::numbers::sqrt2_v<T>));
  };
  return unary(x, elementwise([distribution](auto v) { return v * distribution(v); }, x.value()),
               [distribution]<class T>(T v, T) {
                 const T density = std::exp(-v * v / 2) * std::numbers::inv_sqrtpi_v<T> /
                                   std::numbers::sqrt2_v<T>;
                 return distribution(v) + v * density;
               });
}

Variable silu(const Variable& x) {
  const Tensor share = activate(x, Activation::sigmoid);
  const Tensor result = elementwise([](auto v, auto s) { return v * s; }, x.value(), share);
  return record(result, {x}, [input = x.value(), share](const Tensor& gradient, Slots slots) {
    autograd::receive(
        slots[0], [](auto g, auto v, auto s) { return g * (s * (1 + v * (1 - s))); }, gradient,
        input, share);
  });
}

Variable softplus(const Variable& x, double beta) {
  if (!(beta > 0)) {
    throw OptionError(fmt::format("softplus: expected beta > 0, found {}", beta));
  }
  const auto value = [beta]<class T>(T v) {
    const T scaled = static_cast<T>(beta) * v;
    return ((scaled > 0 ? scaled : T{0}) + std::log1p(std::exp(-std::abs(scaled)))) /
           static_cast<T>(beta);
  };
  return unary(x, elementwise(value, x.value()),
               [beta]<class T>(T v, T) { return 1 / (1 + std::exp(-static_cast<T>(beta) * v)); });
}

Variable leaky_relu(const Variable& x, double negative_slope) {
  const auto slope = [negative_slope]<class T>(T v) {
    return v > 0 ? T{1} : static_cast<T>(negative_slope);
  };
  return unary(x, elementwise([slope](auto v) { return slope(v) * v; }, x.value()),
               [slope](auto v, auto) { return slope(v); });
}

Variable elu(const Variable& x, double alpha) {
  const auto value = [alpha]<class T>(T v) {
    return v > 0 ? v : static_cast<T>(alpha) * std::expm1(v);
  };
  return unary(x, elementwise(value, x.value()), [alpha]<class T>(T v, T) {
    return v > 0 ? T{1} : static_cast<T>(alpha) * std::exp(v);
  });
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
  dispatch_floating(
      x.dtype(), [&]<class T>() { forward(rows, length, x.value().data<T>(), result.data<T>()); });
  return record(result, {x}, [result, rows, length, backward](const Tensor& gradient, Slots slots) {
    slots[0].receive([&](Tensor& target, bool accumulate) {
      dispatch_floating(gradient.dtype(), [&]<class T>() {
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
