#include "lockstep/autograd/operations.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "autograd/elementwise.hpp"
#include "lockstep/core/error.hpp"
#include "tensor/dispatch.hpp"
#include "tensor/kernels.hpp"
#include "tensor/random_bits.hpp"

namespace lockstep {

using autograd::elementwise;
using autograd::GradientSlot;
using autograd::one_over;
using autograd::receive;
using autograd::record;
using autograd::Slots;
using autograd::unary;

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

namespace {

// f(x) of a linear f, whose derivative needs no x.
template <class F, class Derivative>
Variable linear_function(const Variable& x, F f, Derivative derivative) {
  return record(elementwise(f, x.value()), {x}, [derivative](const Tensor& gradient, Slots slots) {
    receive(slots[0], derivative, gradient);
  });
}

}  // namespace

Variable operator-(const Variable& x) {
  const auto negative = [](auto v) { return -v; };
  return linear_function(x, negative, negative);
}

Variable operator+(const Variable& x, double scalar) {
  const auto sum = [scalar](auto v) { return v + static_cast<decltype(v)>(scalar); };
  return record(elementwise(sum, x.value()), {x},
                [](const Tensor& gradient, Slots slots) { slots[0].pass(gradient); });
}

Variable operator+(double scalar, const Variable& x) { return x + scalar; }
Variable operator-(const Variable& x, double scalar) { return x + -scalar; }

Variable operator-(double scalar, const Variable& x) {
  return linear_function(
      x, [scalar](auto v) { return static_cast<decltype(v)>(scalar) - v; },
      [](auto g) { return -g; });
}

Variable operator*(const Variable& x, double scalar) {
  const auto product = [scalar](auto v) { return v * static_cast<decltype(v)>(scalar); };
  return linear_function(x, product, product);
}

Variable operator*(double scalar, const Variable& x) { return x * scalar; }

Variable operator/(const Variable& x, double scalar) {
  const auto quotient = [scalar](auto v) { return v / static_cast<decltype(v)>(scalar); };
  return linear_function(x, quotient, quotient);
}

Variable exp(const Variable& x) {
  Tensor result = Tensor::empty(x.shape(), x.dtype());
  dispatch_kernel(
      x.dtype(), [&]<class T>() { kernels::exp(x.size(), x.value().data<T>(), result.data<T>()); });
  return unary(x, result, [](auto, auto y) { return y; });
}

Variable log(const Variable& x) {
  Tensor result = Tensor::empty(x.shape(), x.dtype());
  dispatch_kernel(
      x.dtype(), [&]<class T>() { kernels::log(x.size(), x.value().data<T>(), result.data<T>()); });
  return unary(x, result, [](auto v, auto) { return 1 / v; });
}

namespace {

// factor · (sum of all elements)
Variable scaled_sum(const Variable& x, double factor) {
  const double total = dispatch_kernel(
      x.dtype(), [&]<class T>() { return kernels::sum(x.size(), x.value().data<T>()); });
  return record(Tensor::full({}, factor * total, x.dtype()), {x},
                [shape = x.shape(), factor](const Tensor& gradient, Slots slots) {
                  slots[0].pass(Tensor::full(shape, factor * gradient.item(), gradient.dtype()));
                });
}

}  // namespace

Variable sum(const Variable& x) { return scaled_sum(x, 1.0); }
Variable mean(const Variable& x) { return scaled_sum(x, one_over(x.size())); }

Variable dropout(const Variable& x, double p, RandomKey key) {
  if (!(p >= 0 && p < 1)) {
    throw OptionError(fmt::format("dropout: expected 0 <= p < 1, found p = {}", p));
  }
  if (p == 0) return x;
  Tensor mask = Tensor::empty(x.shape(), x.dtype());
  dispatch_kernel(x.dtype(), [&]<class T>() {
    const T kept = static_cast<T>(1 / (1 - p));
    // Of numbers in [0, 1) with 53 digits, as RandomKey::uniform() gives.
    const auto dropped = static_cast<std::uint64_t>(std::ceil(std::ldexp(p, 53)));
    for_each_with_bits(mask.span<T>(), key, [=](T& element, std::uint64_t bits) {
      element = (bits >> 11) < dropped ? T{0} : kept;
    });
  });
  return x * Variable(mask);
}

}  // namespace lockstep
