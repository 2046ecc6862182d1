#include "lockstep/autograd/convolution.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "autograd/window_options.hpp"
#include "lockstep/core/error.hpp"
#include "tensor/convolution.hpp"
#include "tensor/dispatch.hpp"
#include "tensor/kernels.hpp"

namespace lockstep {

using autograd::GradientSlot;
using autograd::record;
using kernels::Transpose;
using kernels::Windows;
using Slots = std::span<GradientSlot>;

namespace {

std::string to_string(Size2d size) { return fmt::format("{} x {}", size.height, size.width); }

void check(bool holds, const char* what, const char* expected, Size2d found) {
  if (holds) return;
  throw OptionError(fmt::format("{}: expected {}, found {}", what, expected, to_string(found)));
}

void check_steps(const char* what, Size2d kernel, Size2d stride, Size2d padding) {
  constexpr std::int64_t limit = std::int64_t{1} << 31;  // so that no sum of extents overflows
  check(kernel.height >= 1 && kernel.width >= 1, what, "kernel >= 1", kernel);
  check(stride.height >= 1 && stride.width >= 1, what, "stride >= 1", stride);
  check(padding.height >= 0 && padding.width >= 0, what, "padding >= 0", padding);
  check(padding.height < limit && padding.width < limit, what, "padding < 2^31", padding);
}

// The windows of a kernel in x of (n, channels, height, width).
Windows windows_in(const char* what, const Shape& x, Size2d kernel, Size2d stride, Size2d padding) {
  const Size2d least{std::max<std::int64_t>(kernel.height - 2 * padding.height, 1),
                     std::max<std::int64_t>(kernel.width - 2 * padding.width, 1)};
  if (x[2] < least.height || x[3] < least.width) {
    throw ShapeError(fmt::format(
        "{}: a kernel of {} with padding {} expects images of at least {}, found shape {}", what,
        to_string(kernel), to_string(padding), to_string(least), to_string(x)));
  }
  return {{x[2], kernel.height, stride.height, padding.height},
          {x[3], kernel.width, stride.width, padding.width}};
}

// A convolution of `samples` images, one after another: a product of matrices for each, so that its
// bits do not depend on the others.
struct Convolution {
  Windows windows;
  std::int64_t samples, in, out;

  std::int64_t taps() const { return in * windows.taps(); }
  std::int64_t input() const { return in * windows.pixels(); }
  std::int64_t output() const { return out * windows.count(); }
  Tensor scratch(DType dtype) const { return Tensor::empty({taps(), windows.count()}, dtype); }

  // y = weight · columns of x [+ y]
  template <class T>
  void forward(const T* x, const T* weight, T* y, bool accumulate) const {
    Tensor columns = scratch(dtype_of<T>);
    for (std::int64_t sample = 0; sample < samples; ++sample, x += input(), y += output()) {
      kernels::im2col(windows, in, x, columns.data<T>());
      kernels::gemm(Transpose::no, Transpose::no, out, windows.count(), taps(), weight,
                    columns.data<T>(), y, accumulate);
    }
  }

  // dx (+)= the images of weightᵀ · dy
  template <class T>
  void input_gradient(const T* dy, const T* weight, T* dx, bool accumulate) const {
    if (!accumulate) std::fill_n(dx, samples * input(), T{0});
    Tensor columns = scratch(dtype_of<T>);
    for (std::int64_t sample = 0; sample < samples; ++sample, dx += input(), dy += output()) {
      kernels::gemm(Transpose::yes, Transpose::no, taps(), windows.count(), out, weight, dy,
                    columns.data<T>(), false);
      kernels::col2im(windows, in, columns.data<T>(), dx);
    }
  }

  // dw (+)= sum over samples of dy · (columns of x)ᵀ
  template <class T>
  void weight_gradient(const T* dy, const T* x, T* dw, bool accumulate) const {
    if (!accumulate) std::fill_n(dw, out * taps(), T{0});
    Tensor columns = scratch(dtype_of<T>);
    for (std::int64_t sample = 0; sample < samples; ++sample, x += input(), dy += output()) {
      kernels::im2col(windows, in, x, columns.data<T>());
      kernels::gemm(Transpose::no, Transpose::yes, out, taps(), windows.count(), dy,
                    columns.data<T>(), dw, true);
    }
  }

  // db (+)= sum over samples and windows of dy
  template <class T>
  void bias_gradient(const T* dy, T* db, bool accumulate) const {
    const std::int64_t count = windows.count();
    for (std::int64_t channel = 0; channel < out; ++channel) {
      double total = accumulate ? static_cast<double>(db[channel]) : 0;
      for (std::int64_t sample = 0; sample < samples; ++sample) {
        total += kernels::sum(count, dy + sample * output() + channel * count);
      }
      db[channel] = static_cast<T>(total);
    }
  }
};

Convolution convolution(const Shape& x, const Shape& weight, const Variable& bias,
                        const ConvolutionOptions& options) {
  if (weight.rank() != 4 || weight[2] == 0 || weight[3] == 0) {
    throw ShapeError(
        fmt::format("conv2d: expected a weight of shape (out, in, height, width), found {}",
                    to_string(weight)));
  }
  if (x.rank() != 4 || x[1] != weight[1]) {
    throw ShapeError(
        fmt::format("conv2d: expected an input of shape (n, {}, height, width), found {}",
                    weight[1], to_string(x)));
  }
  if (bias.defined() && bias.shape() != Shape{weight[0]}) {
    throw ShapeError(fmt::format("conv2d: expected a bias of shape ({}), found {}", weight[0],
                                 to_string(bias.shape())));
  }
  const Size2d kernel{weight[2], weight[3]};
  autograd::check_options("conv2d", kernel, options);
  return {windows_in("conv2d", x, kernel, options.stride, options.padding), x[0], weight[1],
          weight[0]};
}

}  // namespace

void autograd::check_options(const char* what, Size2d kernel, const ConvolutionOptions& options) {
  check_steps(what, kernel, options.stride, options.padding);
}

void autograd::check_options(const char* what, Size2d kernel, const PoolingOptions& options) {
  check_steps(what, kernel, options.stride.value_or(kernel), options.padding);
  check(options.padding.height <= kernel.height / 2 && options.padding.width <= kernel.width / 2,
        what, "padding <= kernel / 2", options.padding);
}

Variable conv2d(const Variable& x, const Variable& weight, const Variable& bias,
                const ConvolutionOptions& options) {
  const Convolution plan = convolution(x.shape(), weight.shape(), bias, options);
  const Windows& windows = plan.windows;
  Tensor result = Tensor::empty(
      {plan.samples, plan.out, windows.vertical.count(), windows.horizontal.count()}, x.dtype());
  dispatch_floating(x.dtype(), [&]<class T>() {
    T* y = result.data<T>();
    if (bias.defined()) {
      const T* b = bias.value().data<T>();
      for (std::int64_t row = 0; row < plan.samples * plan.out; ++row) {
        std::fill_n(y + row * windows.count(), windows.count(), b[row % plan.out]);
      }
    }
    plan.forward(x.value().data<T>(), weight.value().data<T>(), y, bias.defined());
  });
  std::vector<Variable> inputs{x, weight};
  if (bias.defined()) inputs.push_back(bias);
  return record(result, std::move(inputs),
                [input = x.value(), w = weight.value(), plan](const Tensor& gradient, Slots slots) {
                  dispatch_floating(gradient.dtype(), [&]<class T>() {
                    const T* dy = gradient.data<T>();
                    if (slots.size() > 2) {
                      slots[2].receive([&](Tensor& target, bool accumulate) {
                        plan.bias_gradient(dy, target.data<T>(), accumulate);
                      });
                    }
                    slots[1].receive([&](Tensor& target, bool accumulate) {
                      plan.weight_gradient(dy, input.data<T>(), target.data<T>(), accumulate);
                    });
                    slots[0].receive([&](Tensor& target, bool accumulate) {
                      plan.input_gradient(dy, w.data<T>(), target.data<T>(), accumulate);
                    });
                  });
                });
}

Variable max_pool2d(const Variable& x, Size2d kernel, const PoolingOptions& options) {
  const Shape& shape = x.shape();
  autograd::check_options("max_pool2d", kernel, options);
  if (shape.rank() != 4) {
    throw ShapeError(
        fmt::format("max_pool2d: expected an input of shape (n, channels, height, width), found {}",
                    to_string(shape)));
  }
  const Windows windows =
      windows_in("max_pool2d", shape, kernel, options.stride.value_or(kernel), options.padding);
  const std::int64_t channels = shape[0] * shape[1];
  const Shape pooled{shape[0], shape[1], windows.vertical.count(), windows.horizontal.count()};
  Tensor result = Tensor::empty(pooled, x.dtype());
  Tensor pixels = Tensor::empty(pooled, DType::i64);
  dispatch_floating(x.dtype(), [&]<class T>() {
    kernels::max_pool(windows, channels, x.value().data<T>(), result.data<T>(),
                      pixels.data<std::int64_t>());
  });
  return record(result, {x}, [windows, channels, pixels](const Tensor& gradient, Slots slots) {
    slots[0].receive([&](Tensor& target, bool accumulate) {
      dispatch_floating(gradient.dtype(), [&]<class T>() {
        if (!accumulate) std::fill_n(target.data<T>(), target.size(), T{0});
        kernels::max_unpool(windows, channels, gradient.data<T>(), pixels.data<std::int64_t>(),
                            target.data<T>());
      });
    });
  });
}

}  // namespace lockstep
