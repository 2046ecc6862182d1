#include "lockstep/autograd/convolution.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "autograd/window_options.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/tensor/memory_pool.hpp"
#include "tensor/convolution.hpp"
#include "tensor/dispatch.hpp"
#include "tensor/kernels.hpp"
#include "tensor/pooling.hpp"

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
  Activation activation;

  std::int64_t taps() const { return in * windows.taps(); }
  std::int64_t input() const { return in * windows.pixels(); }
  std::int64_t output() const { return out * windows.count(); }

  // y = f(weight · columns of x + bias)
  template <class T>
  void forward(const T* x, const T* weight, const T* bias, T* y) const {
    Tensor columns = unfolded<T>(), padded = padded_images<T>();
    for (std::int64_t sample = 0; sample < samples; ++sample, x += input(), y += output()) {
      kernels::pad(windows, in, x, padded.data<T>());
      kernels::im2col(windows, in, padded.data<T>(), columns.data<T>());
      kernels::gemm(Transpose::no, Transpose::no, out, windows.count(), taps(), weight,
                    columns.data<T>(), y, false);
      if (bias != nullptr) {
        kernels::activate_columns(activation, out, windows.count(), bias, y);
      } else {
        kernels::activate(activation, output(), y, y);
      }
    }
  }

  // Where a gradient goes that is wanted.
  template <class T>
  struct Target {
    T* data = nullptr;
    bool accumulate = false;
  };

  // With dz = dy · f'(z): dx (+)= the images of weightᵀ · dz, dw (+)= the sum over samples of
  // dz · (columns of x)ᵀ, db (+)= that over samples and windows of dz.
  template <class T>
  void backward(const T* x, const T* weight, const T* y, const T* dy, Target<T> dx, Target<T> dw,
                Target<T> db) const {
    Tensor columns = unfolded<T>(), padded = padded_images<T>();
    Tensor padded_gradient = padded_images<T>();
    Tensor dz = Tensor::empty({activation == Activation::none ? 0 : output()}, dtype_of<T>);
    std::vector<double> bias;
    if (db.data != nullptr) bias.resize(static_cast<std::size_t>(out));
    if (db.accumulate) std::copy_n(db.data, out, bias.begin());
    if (dw.data != nullptr && !dw.accumulate) std::fill_n(dw.data, out * taps(), T{0});
    for (std::int64_t sample = 0; sample < samples; ++sample) {
      const T* g = dy + sample * output();
      if (activation != Activation::none) {
        kernels::activation_gradient(activation, output(), y + sample * output(), g, dz.data<T>(),
                                     false);
        g = dz.data<T>();
      }
      const T* row = g;
      for (double& total : bias) {
        total += kernels::sum(windows.count(), row);
        row += windows.count();
      }
      if (dw.data != nullptr) {
        kernels::pad(windows, in, x + sample * input(), padded.data<T>());
        kernels::im2col(windows, in, padded.data<T>(), columns.data<T>());
        kernels::gemm(Transpose::no, Transpose::yes, out, taps(), windows.count(), g,
                      columns.data<T>(), dw.data, true);
      }
      if (dx.data != nullptr) {
        kernels::gemm(Transpose::yes, Transpose::no, taps(), windows.count(), out, weight, g,
                      columns.data<T>(), false);
        padded_gradient.fill(0);
        kernels::col2im(windows, in, columns.data<T>(), padded_gradient.data<T>());
        kernels::crop(windows, in, padded_gradient.data<T>(), dx.data + sample * input(),
                      dx.accumulate);
      }
    }
    if (db.data != nullptr) {
      std::transform(bias.begin(), bias.end(), db.data, [](double x) { return static_cast<T>(x); });
    }
  }

 private:
  // Scratch memory, with what the kernels may touch beyond its end.
  template <class T>
  Tensor unfolded() const {
    return Tensor::empty({Shape{taps(), windows.count()}.size() + kernels::slack}, dtype_of<T>);
  }
  template <class T>
  Tensor padded_images() const {
    const Shape shape{in, windows.vertical.padded(), windows.horizontal.padded()};
    return Tensor::zeros({shape.size() + kernels::slack}, dtype_of<T>);
  }
};

Convolution convolution(const Shape& x, const Shape& weight, const Variable& bias,
                        const ConvolutionOptions& options, Activation f) {
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
          weight[0], f};
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
                const ConvolutionOptions& options, Activation f) {
  const Convolution plan = convolution(x.shape(), weight.shape(), bias, options, f);
  const Windows& windows = plan.windows;
  Tensor result = Tensor::empty(
      {plan.samples, plan.out, windows.vertical.count(), windows.horizontal.count()}, x.dtype());
  dispatch_floating(x.dtype(), [&]<class T>() {
    plan.forward(x.value().data<T>(), weight.value().data<T>(),
                 bias.defined() ? bias.value().data<T>() : nullptr, result.data<T>());
  });
  std::vector<Variable> inputs{x, weight};
  if (bias.defined()) inputs.push_back(bias);
  return record(
      result, std::move(inputs),
      [input = x.value(), w = weight.value(), y = f == Activation::none ? Tensor() : result, plan](
          const Tensor& gradient, Slots slots) {
        dispatch_floating(gradient.dtype(), [&]<class T>() {
          std::array<Convolution::Target<T>, 3> targets;
          for (std::size_t i = 0; i < slots.size(); ++i) {
            slots[i].receive([&](Tensor& target, bool accumulate) {
              targets[i] = {target.data<T>(), accumulate};
            });
          }
          plan.backward(input.data<T>(), w.data<T>(), y.defined() ? y.data<T>() : nullptr,
                        gradient.data<T>(), targets[0], targets[1], targets[2]);
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
  constexpr std::int64_t most_pixels = std::numeric_limits<std::int32_t>::max();
  if (windows.pixels() > most_pixels) {
    throw ShapeError(fmt::format("max_pool2d: expected images of at most {} pixels, found shape {}",
                                 most_pixels, to_string(shape)));
  }
  const auto pixels = std::allocate_shared_for_overwrite<std::int32_t[]>(
      memory_pool::Allocator<std::int32_t>(), static_cast<std::size_t>(pooled.size()));
  dispatch_floating(x.dtype(), [&]<class T>() {
    kernels::max_pool(windows, channels, x.value().data<T>(), result.data<T>(), pixels.get());
  });
  return record(result, {x}, [windows, channels, pixels](const Tensor& gradient, Slots slots) {
    slots[0].receive([&](Tensor& target, bool accumulate) {
      dispatch_floating(gradient.dtype(), [&]<class T>() {
        kernels::max_unpool(windows, channels, gradient.data<T>(), pixels.get(), target.data<T>(),
                            accumulate);
      });
    });
  });
}

}  // namespace lockstep
