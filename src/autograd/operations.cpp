#include "lockstep/autograd/operations.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "lockstep/core/error.hpp"
#include "tensor/dispatch.hpp"
#include "tensor/kernels.hpp"

namespace lockstep {

using autograd::GradientSlot;
using autograd::record;
using Slots = std::span<GradientSlot>;

namespace {

// result[i] = f(inputs[i]...)
template <class F, class... Inputs>
Tensor elementwise(F f, const Tensor& first, const Inputs&... others) {
  Tensor result = Tensor::empty(first.shape(), first.dtype());
  dispatch_floating(first.dtype(), [&]<class T>() {
    const auto apply = [n = first.size(), f, out = result.data<T>()](const auto*... in) {
      for (std::int64_t i = 0; i < n; ++i) out[i] = static_cast<T>(f(in[i]...));
    };
    apply(first.data<T>(), others.template data<T>()...);
  });
  return result;
}

// gradient[i] (+)= f(inputs[i]...)
template <class F, class... Inputs>
void receive(GradientSlot& slot, F f, const Inputs&... inputs) {
  if (!slot.wanted()) return;
  slot.receive([&](Tensor& gradient, bool accumulate) {
    dispatch_floating(gradient.dtype(), [&]<class T>() {
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

// A function of one variable whose derivative is a function of its input and its result.
template <class Derivative>
Variable unary(const Variable& x, const Tensor& result, Derivative derivative) {
  return record(
      result, {x}, [input = x.value(), result, derivative](const Tensor& gradient, Slots slots) {
        receive(
            slots[0], [derivative](auto g, auto v, auto y) { return g * derivative(v, y); },
            gradient, input, result);
      });
}

}  // namespace

Variable operator+(const Variable& a, const Variable& b) {
  check_same(a.value(), b.value(), "addition");
  return record(elementwise([](auto x, auto y) { return x + y; }, a.value(), b.value()), {a, b},
                [](const Tensor& gradient, Slots slots) {
                  for (GradientSlot& slot : slots) {
                    if (slot.wanted()) slot.pass(gradient);
                  }
                });
}

Variable operator-(const Variable& a, const Variable& b) {
  check_same(a.value(), b.value(), "subtraction");
  return record(elementwise([](auto x, auto y) { return x - y; }, a.value(), b.value()), {a, b},
                [](const Tensor& gradient, Slots slots) {
                  if (slots[0].wanted()) slots[0].pass(gradient);
                  receive(
                      slots[1], [](auto g) { return -g; }, gradient);
                });
}

Variable operator*(const Variable& a, const Variable& b) {
  check_same(a.value(), b.value(), "multiplication");
  return record(elementwise([](auto x, auto y) { return x * y; }, a.value(), b.value()), {a, b},
                [x = a.value(), y = b.value()](const Tensor& gradient, Slots slots) {
                  const auto product = [](auto g, auto other) { return g * other; };
                  receive(slots[0], product, gradient, y);
                  receive(slots[1], product, gradient, x);
                });
}

Variable operator/(const Variable& a, const Variable& b) {
  check_same(a.value(), b.value(), "division");
  return record(elementwise([](auto x, auto y) { return x / y; }, a.value(), b.value()), {a, b},
                [x = a.value(), y = b.value()](const Tensor& gradient, Slots slots) {
                  receive(
                      slots[0], [](auto g, auto d) { return g / d; }, gradient, y);
                  receive(
                      slots[1], [](auto g, auto n, auto d) { return -g * n / (d * d); }, gradient,
                      x, y);
                });
}

Variable operator-(const Variable& x) { return x * -1.0; }

Variable operator+(const Variable& x, double scalar) {
  return unary(
      x, elementwise([scalar](auto v) { return v + static_cast<decltype(v)>(scalar); }, x.value()),
      [](auto v, auto) { return decltype(v){1}; });
}

Variable operator+(double scalar, const Variable& x) { return x + scalar; }
Variable operator-(const Variable& x, double scalar) { return x + -scalar; }
Variable operator-(double scalar, const Variable& x) { return x * -1.0 + scalar; }

Variable operator*(const Variable& x, double scalar) {
  return unary(
      x, elementwise([scalar](auto v) { return v * static_cast<decltype(v)>(scalar); }, x.value()),
      [scalar](auto v, auto) { return static_cast<decltype(v)>(scalar); });
}

Variable operator*(double scalar, const Variable& x) { return x * scalar; }

Variable operator/(const Variable& x, double scalar) {
  return unary(
      x, elementwise([scalar](auto v) { return v / static_cast<decltype(v)>(scalar); }, x.value()),
      [scalar](auto v, auto) { return 1 / static_cast<decltype(v)>(scalar); });
}

Variable exp(const Variable& x) {
  Tensor result = Tensor::empty(x.shape(), x.dtype());
  dispatch_floating(
      x.dtype(), [&]<class T>() { kernels::exp(x.size(), x.value().data<T>(), result.data<T>()); });
  return unary(x, result, [](auto, auto y) { return y; });
}

Variable log(const Variable& x) {
  Tensor result = Tensor::empty(x.shape(), x.dtype());
  dispatch_floating(
      x.dtype(), [&]<class T>() { kernels::log(x.size(), x.value().data<T>(), result.data<T>()); });
  return unary(x, result, [](auto v, auto) { return 1 / v; });
}

namespace {

Variable activated(const Variable& x, Activation f) {
  Tensor result = Tensor::empty(x.shape(), x.dtype());
  dispatch_floating(x.dtype(), [&]<class T>() {
    kernels::activate(f, x.size(), x.value().data<T>(), result.data<T>());
  });
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

namespace {

// factor · (sum of all elements)
Variable scaled_sum(const Variable& x, double factor) {
  const double total = dispatch_floating(
      x.dtype(), [&]<class T>() { return kernels::sum(x.size(), x.value().data<T>()); });
  return record(Tensor::full({}, factor * total, x.dtype()), {x},
                [shape = x.shape(), factor](const Tensor& gradient, Slots slots) {
                  slots[0].pass(Tensor::full(shape, factor * gradient.item(), gradient.dtype()));
                });
}

double one_over(std::int64_t count) { return count == 0 ? 0.0 : 1.0 / static_cast<double>(count); }

}  // namespace

Variable sum(const Variable& x) { return scaled_sum(x, 1.0); }
Variable mean(const Variable& x) { return scaled_sum(x, one_over(x.size())); }

Variable reshape(const Variable& x, const Shape& shape) {
  return record(x.value().reshape(shape), {x},
                [](const Tensor& gradient, Slots slots) { slots[0].pass(gradient); });
}

Variable dropout(const Variable& x, double p, RandomKey key) {
  if (!(p >= 0 && p < 1)) {
    throw OptionError(fmt::format("dropout: expected 0 <= p < 1, found p = {}", p));
  }
  Tensor mask = Tensor::empty(x.shape(), x.dtype());
  dispatch_floating(x.dtype(), [&]<class T>() {
    const T kept = static_cast<T>(1 / (1 - p));
    std::uint64_t index = 0;
    for (T& element : mask.span<T>()) element = key.uniform(index++) < p ? T{0} : kept;
  });
  return x * Variable(mask);
}

Variable mean_squared_error(const Variable& prediction, const Variable& target) {
  check_same(prediction.value(), target.value(), "mean_squared_error");
  const Tensor difference =
      elementwise([](auto x, auto y) { return x - y; }, prediction.value(), target.value());
  const double factor = one_over(difference.size());
  const double total = dispatch_floating(difference.dtype(), [&]<class T>() {
    return kernels::sum_squares(difference.size(), difference.data<T>());
  });
  return record(Tensor::full({}, factor * total, difference.dtype()), {prediction, target},
                [difference, factor](const Tensor& gradient, Slots slots) {
                  const double slope = 2 * factor * gradient.item();
                  const auto scaled = [](double by) {
                    return [by](auto d) { return static_cast<decltype(d)>(by) * d; };
                  };
                  receive(slots[0], scaled(slope), difference);
                  receive(slots[1], scaled(-slope), difference);
                });
}

Variable cross_entropy(const Variable& logits, const Tensor& labels) {
  if (logits.shape().rank() != 2) {
    throw ShapeError(fmt::format("cross_entropy: logits: expected a matrix, found shape {}",
                                 to_string(logits.shape())));
  }
  const std::int64_t rows = logits.shape()[0], classes = logits.shape()[1];
  if (labels.shape() != Shape{rows}) {
    throw ShapeError(fmt::format("cross_entropy: expected labels of shape ({}), found {}", rows,
                                 to_string(labels.shape())));
  }
  const std::span<const std::int64_t> label = labels.span<std::int64_t>();
  for (std::size_t row = 0; row < label.size(); ++row) {
    if (label[row] < 0 || label[row] >= classes) {
      throw DataError(fmt::format("cross_entropy: label {} of row {} is outside [0, {})",
                                  label[row], row, classes));
    }
  }
  Tensor probabilities = Tensor::empty(logits.shape(), logits.dtype());
  const double total = dispatch_floating(logits.dtype(), [&]<class T>() {
    return kernels::softmax_cross_entropy(rows, classes, logits.value().data<T>(), label.data(),
                                          probabilities.data<T>());
  });
  return record(Tensor::full({}, total * one_over(rows), logits.dtype()), {logits},
                [probabilities, labels, rows, classes](const Tensor& gradient, Slots slots) {
                  const double factor = gradient.item() * one_over(rows);
                  slots[0].receive([&](Tensor& target, bool accumulate) {
                    dispatch_floating(target.dtype(), [&]<class T>() {
                      const T* p = probabilities.data<T>();
                      const std::int64_t* wanted = labels.data<std::int64_t>();
                      T* out = target.data<T>();
                      for (std::int64_t row = 0; row < rows; ++row) {
                        for (std::int64_t j = 0; j < classes; ++j, ++p, ++out) {
                          const T derivative =
                              static_cast<T>(factor) * (*p - (j == wanted[row] ? T{1} : T{0}));
                          *out = accumulate ? *out + derivative : derivative;
                        }
                      }
                    });
                  });
                });
}

}  // namespace lockstep
