#include "lockstep/autograd/convolution.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "autograd/max_pooling.hpp"
#include "lockstep/core/error.hpp"
#include "tensor/convolve.hpp"
#include "tensor/dispatch.hpp"

namespace lockstep {

using autograd::GradientSlot;
using autograd::record;
using autograd::WindowOptions;
using kernels::Convolution;
using kernels::GradientTarget;
using Slots = std::span<GradientSlot>;

namespace {

template <class T>
std::array<GradientTarget<T>, 3> open(Slots slots) {
  std::array<GradientTarget<T>, 3> targets;
  for (std::size_t i = 0; i < slots.size(); ++i) {
    slots[i].receive([&](Tensor& target, bool accumulate) {
      targets[i] = {target.data<T>(), accumulate};
    });
  }
  return targets;
}

template <class T>
const T* data_of(const Variable& bias) {
  return bias.defined() ? bias.value().data<T>() : nullptr;
}

std::vector<Variable> inputs_of(const Variable& x, const Variable& weight, const Variable& bias) {
  std::vector<Variable> inputs{x, weight};
  if (bias.defined()) inputs.push_back(bias);
  return inputs;
}

// Returns the size of its kernels.
Size3d check_weight(const char* what, const char* first, int axes, const Shape& weight) {
  const auto rank = static_cast<std::size_t>(axes) + 2;
  bool empty = weight.rank() != rank;
  for (std::size_t axis = 2; axis < weight.rank(); ++axis) empty = empty || weight[axis] == 0;
  if (empty) {
    throw ShapeError(fmt::format("{}: expected a weight of shape {}, found {}", what,
                                 autograd::axes_text(axes, first), to_string(weight)));
  }
  Size3d kernel = 1;
  kernel.width = weight[rank - 1];
  if (axes > 1) kernel.height = weight[rank - 2];
  if (axes > 2) kernel.depth = weight[rank - 3];
  return kernel;
}

void check_input(const char* what, int axes, const Shape& x, std::int64_t channels) {
  if (x.rank() == static_cast<std::size_t>(axes) + 2 && x[1] == channels) return;
  throw ShapeError(fmt::format("{}: expected an input of shape {}, found {}", what,
                               autograd::axes_text(axes, fmt::format("n, {}", channels)),
                               to_string(x)));
}

void check_bias(const char* what, const Variable& bias, std::int64_t out) {
  if (!bias.defined() || bias.shape() == Shape{out}) return;
  throw ShapeError(fmt::format("{}: expected a bias of shape ({}), found {}", what, out,
                               to_string(bias.shape())));
}

// Checks all of it.
Convolution convolution_of(const char* what, const Variable& x, const Variable& weight,
                           const Variable& bias, WindowOptions& options, std::int64_t groups) {
  options.kernel = check_weight(what, "out, in", options.axes, weight.shape());
  autograd::check_windows(what, options);
  const std::int64_t out = weight.shape()[0],
                     in = weight.shape()[1] * std::max<std::int64_t>(groups, 1);
  autograd::check_groups(what, in, out, groups);
  check_input(what, options.axes, x.shape(), in);
  check_bias(what, bias, out);
  return {autograd::windows_in(what, x.shape(), options), x.shape()[0], in, out, groups};
}

Shape result_shape(const Convolution& of, int axes) {
  return autograd::shape_of(of.samples, of.maps, axes, autograd::counts(of.windows));
}

Variable convolution(const char* what, const Variable& x, const Variable& weight,
                     const Variable& bias, WindowOptions options, std::int64_t groups,
                     Activation f) {
  const Convolution of = convolution_of(what, x, weight, bias, options, groups);
  Tensor result = Tensor::empty(result_shape(of, options.axes), x.dtype());
  dispatch_kernel(x.dtype(), [&]<class T>() {
    kernels::convolve(of, x.value().data<T>(), weight.value().data<T>(), data_of<T>(bias), f,
                      result.data<T>());
  });
  return record(
      result, inputs_of(x, weight, bias),
      [input = x.value(), w = weight.value(), y = f == Activation::none ? Tensor() : result, of, f](
          const Tensor& gradient, Slots slots) {
        dispatch_kernel(gradient.dtype(), [&]<class T>() {
          kernels::convolve_backward(of, input.data<T>(), w.data<T>(),
                                     y.defined() ? y.data<T>() : nullptr, gradient.data<T>(), f,
                                     open<T>(slots));
        });
      });
}

Variable transposed_convolution(const char* what, const Variable& x, const Variable& weight,
                                const Variable& bias, WindowOptions options, std::int64_t groups,
                                const Size3d& more) {
  options.kernel = check_weight(what, "in, out", options.axes, weight.shape());
  autograd::check_windows(what, options);
  autograd::check_output_padding(what, options, more);
  const std::int64_t in = weight.shape()[0],
                     out = weight.shape()[1] * std::max<std::int64_t>(groups, 1);
  autograd::check_groups(what, in, out, groups);
  check_input(what, options.axes, x.shape(), in);
  check_bias(what, bias, out);
  const Size3d extents = autograd::transposed_extents(options, x.shape(), more);
  if (extents.depth < 1 || extents.height < 1 || extents.width < 1) {
    throw ShapeError(fmt::format("{}: padding cuts off all of the result for an input of shape {}",
                                 what, to_string(x.shape())));
  }
  const Shape shape = autograd::shape_of(x.shape()[0], out, options.axes, extents);
  const Convolution of{autograd::windows_in(what, shape, options), x.shape()[0], out, in, groups};
  Tensor result = Tensor::empty(shape, x.dtype());
  dispatch_kernel(x.dtype(), [&]<class T>() {
    kernels::convolve_transposed(of, x.value().data<T>(), weight.value().data<T>(),
                                 data_of<T>(bias), result.data<T>());
  });
  return record(result, inputs_of(x, weight, bias),
                [input = x.value(), w = weight.value(), of](const Tensor& gradient, Slots slots) {
                  dispatch_kernel(gradient.dtype(), [&]<class T>() {
                    kernels::convolve_transposed_backward(of, input.data<T>(), w.data<T>(),
                                                          gradient.data<T>(), open<T>(slots));
                  });
                });
}

}  // namespace

Variable conv1d(const Variable& x, const Variable& weight, const Variable& bias,
                const ConvolutionOptions<std::int64_t>& options, Activation f) {
  return convolution("conv1d", x, weight, bias, autograd::window_options(options), options.groups,
                     f);
}
Variable conv2d(const Variable& x, const Variable& weight, const Variable& bias,
                const ConvolutionOptions<Size2d>& options, Activation f) {
  return convolution("conv2d", x, weight, bias, autograd::window_options(options), options.groups,
                     f);
}
Variable conv3d(const Variable& x, const Variable& weight, const Variable& bias,
                const ConvolutionOptions<Size3d>& options, Activation f) {
  return convolution("conv3d", x, weight, bias, autograd::window_options(options), options.groups,
                     f);
}

template <class Size>
Variable autograd::pooled_convolution(const Variable& x, const Variable& weight,
                                      const Variable& bias, const ConvolutionOptions<Size>& options,
                                      Activation f, Size kernel,
                                      const PoolingOptions<Size>& pooling) {
  constexpr int axes = axes_of<Size>;
  constexpr const char* conv = axes == 1 ? "conv1d" : axes == 2 ? "conv2d" : "conv3d";
  constexpr const char* pool = axes == 1 ? "max_pool1d" : axes == 2 ? "max_pool2d" : "max_pool3d";
  WindowOptions windows = window_options(options);
  const Convolution of = convolution_of(conv, x, weight, bias, windows, options.groups);
  const Shape between = result_shape(of, axes);
  const Pooling pooled = autograd::pooling(pool, between, pooling_options(kernel, pooling));
  if (!kernels::suits_pooling(of, pooled.windows)) {
    const Variable y = convolution(conv, x, weight, bias, windows, options.groups, f);
    if constexpr (axes == 1) return max_pool1d(y, kernel, pooling);
    if constexpr (axes == 2) return max_pool2d(y, kernel, pooling);
    if constexpr (axes == 3) return max_pool3d(y, kernel, pooling);
  }
  Tensor maxima = Tensor::empty(pooled.result, x.dtype());
  const auto pixels = pixels_of_maxima(pool, between, pooled);
  dispatch_kernel(x.dtype(), [&]<class T>() {
    kernels::convolve_and_pool(of, pooled.windows, x.value().data<T>(), weight.value().data<T>(),
                               data_of<T>(bias), f, maxima.data<T>(), pixels.get());
  });
  return record(maxima, inputs_of(x, weight, bias),
                [input = x.value(), w = weight.value(), maxima, pixels, of, f,
                 windows = pooled.windows](const Tensor& gradient, Slots slots) {
                  dispatch_kernel(gradient.dtype(), [&]<class T>() {
                    kernels::convolve_and_pool_backward(of, windows, input.data<T>(), w.data<T>(),
                                                        maxima.data<T>(), pixels.get(),
                                                        gradient.data<T>(), f, open<T>(slots));
                  });
                });
}

#define LOCKSTEP_INSTANTIATE(Size)                                                                 \
  template Variable autograd::pooled_convolution(const Variable&, const Variable&,                 \
                                                 const Variable&, const ConvolutionOptions<Size>&, \
                                                 Activation, Size, const PoolingOptions<Size>&);
LOCKSTEP_INSTANTIATE(std::int64_t)
LOCKSTEP_INSTANTIATE(Size2d)
LOCKSTEP_INSTANTIATE(Size3d)
#undef LOCKSTEP_INSTANTIATE

Variable conv_transpose1d(const Variable& x, const Variable& weight, const Variable& bias,
                          const TransposedOptions<std::int64_t>& options) {
  return transposed_convolution("conv_transpose1d", x, weight, bias,
                                autograd::window_options(options), options.groups,
                                autograd::spread(options.output_padding, 0));
}
Variable conv_transpose2d(const Variable& x, const Variable& weight, const Variable& bias,
                          const TransposedOptions<Size2d>& options) {
  return transposed_convolution("conv_transpose2d", x, weight, bias,
                                autograd::window_options(options), options.groups,
                                autograd::spread(options.output_padding, 0));
}
Variable conv_transpose3d(const Variable& x, const Variable& weight, const Variable& bias,
                          const TransposedOptions<Size3d>& options) {
  return transposed_convolution("conv_transpose3d", x, weight, bias,
                                autograd::window_options(options), options.groups,
                                autograd::spread(options.output_padding, 0));
}

}  // namespace lockstep
