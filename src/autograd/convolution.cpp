#include "lockstep/autograd/convolution.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
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
using autograd::WindowOptions;
using kernels::Transpose;
using kernels::Windows;
using Slots = std::span<GradientSlot>;

namespace {

// Where a gradient goes that is wanted.
template <class T>
struct Target {
  T* data = nullptr;
  bool accumulate = false;
};

// The products of a convolution, or of its adjoint, of one sample after another, so that bits do not depend on
// the others: of a weight (maps, channels / groups · taps), images of `channels`, and maps that have a
// number for each window in an image.
struct WindowProducts {
  Windows windows;
  std::int64_t samples, channels, maps, groups;

  std::int64_t taps() const { return channels / groups * windows.taps(); }  // of a map
  std::int64_t image() const { return channels * windows.pixels(); }
  std::int64_t result() const { return maps * windows.count(); }

  // Memory for the columns of an image, and for a padded one, with what the kernels may touch beyond its end.
  template <class T>
  struct Scratch {
    explicit Scratch(const WindowProducts& of)
        : Scratch(of, Tensor::empty({Shape{of.groups * of.taps(), of.windows.count()}.size() +
                                     kernels::slack},
                                    dtype_of<T>)) {}
    Scratch(const WindowProducts& of, Tensor memory)
        : columns(std::move(memory)),
          padded(Tensor::zeros(
              {Shape{of.channels, of.windows.padded_pixels()}.size() + kernels::slack},
              dtype_of<T>)) {}
    Tensor columns, padded;
  };

  // The columns of an image of this padded memory, which has had no other use.
  template <class T>
  void unfold(const T* image, Scratch<T>& scratch) const {
    kernels::pad(windows, channels, image, scratch.padded.template data<T>());
    kernels::im2col(windows, channels, scratch.padded.template data<T>(),
                    scratch.columns.template data<T>());
  }
  // image (+)= what the columns have come from.
  template <class T>
  void fold(Scratch<T>& scratch, T* image, bool accumulate) const {
    scratch.padded.fill(0);
    kernels::col2im(windows, channels, scratch.columns.template data<T>(),
                    scratch.padded.template data<T>());
    kernels::crop(windows, channels, scratch.padded.template data<T>(), image, accumulate);
  }

  // result (+)= weight · columns
  template <class T>
  void multiply(const T* weight, Scratch<T>& scratch, T* result, bool accumulate) const {
    for_each_group(scratch, weight, result, [&](const T* w, T* columns, T* r) {
      kernels::gemm(Transpose::no, Transpose::no, maps / groups, windows.count(), taps(), w,
                    std::as_const(columns), r, accumulate);
    });
  }
  // columns = weightᵀ · result
  template <class T>
  void multiply_transposed(const T* weight, const T* result, Scratch<T>& scratch) const {
    for_each_group(scratch, weight, result, [&](const T* w, T* columns, const T* r) {
      kernels::gemm(Transpose::yes, Transpose::no, taps(), windows.count(), maps / groups, w, r,
                    columns, false);
    });
  }
  // weight += result · columnsᵀ
  template <class T>
  void add_products(const T* result, Scratch<T>& scratch, T* weight) const {
    for_each_group(scratch, weight, result, [&](T* w, T* columns, const T* r) {
      kernels::gemm(Transpose::no, Transpose::yes, maps / groups, taps(), windows.count(), r,
                    std::as_const(columns), w, true);
    });
  }

 private:
  template <class T, class Weight, class Result, class F>
  void for_each_group(Scratch<T>& scratch, Weight* weight, Result* result, F f) const {
    T* columns = scratch.columns.template data<T>();
    for (std::int64_t group = 0; group < groups; ++group) {
      f(weight + group * (maps / groups) * taps(), columns + group * taps() * windows.count(),
        result + group * (maps / groups) * windows.count());
    }
  }
};

// bias[map] (+)= the sum of each map over samples and windows.
template <class T>
class BiasGradient {
 public:
  BiasGradient(Target<T> target, std::int64_t maps, std::int64_t count)
      : target_(target),
        sums_(target.data == nullptr ? 0 : static_cast<std::size_t>(maps)),
        count_(count) {
    if (target.accumulate) std::copy_n(target.data, sums_.size(), sums_.begin());
  }
  void add(const T* maps) {
    for (double& sum : sums_) {
      sum += kernels::sum(count_, maps);
      maps += count_;
    }
  }
  void store() const {
    std::transform(sums_.begin(), sums_.end(), target_.data,
                   [](double sum) { return static_cast<T>(sum); });
  }

 private:
  Target<T> target_;
  std::vector<double> sums_;
  std::int64_t count_;  // of the numbers of a map
};

// y = f(weight · columns of x + bias)
template <class T>
void convolve(const WindowProducts& of, const T* x, const T* weight, const T* bias, Activation f,
              T* y) {
  WindowProducts::Scratch<T> scratch(of);
  for (std::int64_t sample = 0; sample < of.samples; ++sample, x += of.image(), y += of.result()) {
    of.unfold(x, scratch);
    of.multiply(weight, scratch, y, false);
    if (bias != nullptr) {
      kernels::activate_columns(f, of.maps, of.windows.count(), bias, y);
    } else {
      kernels::activate(f, of.result(), y, y);
    }
  }
}

// With dz = dy · f'(z): dx (+)= the images of weightᵀ · dz, dw (+)= the sum over samples of
// dz · (columns of x)ᵀ, db (+)= that over samples and windows of dz.
template <class T>
void convolve_backward(const WindowProducts& of, const T* x, const T* weight, const T* y,
                       const T* dy, Activation f, std::array<Target<T>, 3> targets) {
  const auto [dx, dw, db] = targets;
  WindowProducts::Scratch<T> of_x(of), of_gradient(of, of_x.columns);  // by turns
  Tensor dz = Tensor::empty({f == Activation::none ? 0 : of.result()}, dtype_of<T>);
  BiasGradient<T> bias(db, of.maps, of.windows.count());
  if (dw.data != nullptr && !dw.accumulate) std::fill_n(dw.data, of.maps * of.taps(), T{0});
  for (std::int64_t sample = 0; sample < of.samples; ++sample) {
    const T* g = dy + sample * of.result();
    if (f != Activation::none) {
      kernels::activation_gradient(f, of.result(), y + sample * of.result(), g, dz.data<T>(),
                                   false);
      g = dz.data<T>();
    }
    bias.add(g);
    if (dw.data != nullptr) {
      of.unfold(x + sample * of.image(), of_x);
      of.add_products(g, of_x, dw.data);
    }
    if (dx.data != nullptr) {
      of.multiply_transposed(weight, g, of_gradient);
      of.fold(of_gradient, dx.data + sample * of.image(), dx.accumulate);
    }
  }
  bias.store();
}

// y = the images of weightᵀ · x, plus bias
template <class T>
void convolve_transposed(const WindowProducts& of, const T* x, const T* weight, const T* bias,
                         T* y) {
  WindowProducts::Scratch<T> scratch(of);
  for (std::int64_t sample = 0; sample < of.samples; ++sample, x += of.result(), y += of.image()) {
    of.multiply_transposed(weight, x, scratch);
    of.fold(scratch, y, false);
    if (bias != nullptr) {
      kernels::activate_columns(Activation::none, of.channels, of.windows.pixels(), bias, y);
    }
  }
}

// dx (+)= weight · columns of dy, dw (+)= the sum over samples of x · (columns of dy)ᵀ, db (+)= that over
// samples and pixels of dy.
template <class T>
void convolve_transposed_backward(const WindowProducts& of, const T* x, const T* weight,
                                  const T* dy, std::array<Target<T>, 3> targets) {
  const auto [dx, dw, db] = targets;
  WindowProducts::Scratch<T> scratch(of);
  BiasGradient<T> bias(db, of.channels, of.windows.pixels());
  if (dw.data != nullptr && !dw.accumulate) std::fill_n(dw.data, of.maps * of.taps(), T{0});
  for (std::int64_t sample = 0; sample < of.samples; ++sample) {
    const T* g = dy + sample * of.image();
    bias.add(g);
    if (dx.data == nullptr && dw.data == nullptr) continue;
    of.unfold(g, scratch);
    if (dx.data != nullptr) {
      of.multiply(weight, scratch, dx.data + sample * of.result(), dx.accumulate);
    }
    if (dw.data != nullptr) of.add_products(x + sample * of.result(), scratch, dw.data);
  }
  bias.store();
}

template <class T>
std::array<Target<T>, 3> open(Slots slots) {
  std::array<Target<T>, 3> targets;
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

Variable convolution(const char* what, const Variable& x, const Variable& weight,
                     const Variable& bias, WindowOptions options, std::int64_t groups,
                     Activation f) {
  options.kernel = check_weight(what, "out, in", options.axes, weight.shape());
  autograd::check_windows(what, options);
  const std::int64_t out = weight.shape()[0],
                     in = weight.shape()[1] * std::max<std::int64_t>(groups, 1);
  autograd::check_groups(what, in, out, groups);
  check_input(what, options.axes, x.shape(), in);
  check_bias(what, bias, out);
  const WindowProducts of{autograd::windows_in(what, x.shape(), options), x.shape()[0], in, out,
                          groups};
  Tensor result = Tensor::empty(
      autograd::shape_of(of.samples, out, options.axes, autograd::counts(of.windows)), x.dtype());
  dispatch_floating(x.dtype(), [&]<class T>() {
    convolve(of, x.value().data<T>(), weight.value().data<T>(), data_of<T>(bias), f,
             result.data<T>());
  });
  return record(
      result, inputs_of(x, weight, bias),
      [input = x.value(), w = weight.value(), y = f == Activation::none ? Tensor() : result, of, f](
          const Tensor& gradient, Slots slots) {
        dispatch_floating(gradient.dtype(), [&]<class T>() {
          convolve_backward(of, input.data<T>(), w.data<T>(), y.defined() ? y.data<T>() : nullptr,
                            gradient.data<T>(), f, open<T>(slots));
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
  const WindowProducts of{autograd::windows_in(what, shape, options), x.shape()[0], out, in,
                          groups};
  Tensor result = Tensor::empty(shape, x.dtype());
  dispatch_floating(x.dtype(), [&]<class T>() {
    convolve_transposed(of, x.value().data<T>(), weight.value().data<T>(), data_of<T>(bias),
                        result.data<T>());
  });
  return record(result, inputs_of(x, weight, bias),
                [input = x.value(), w = weight.value(), of](const Tensor& gradient, Slots slots) {
                  dispatch_floating(gradient.dtype(), [&]<class T>() {
                    convolve_transposed_backward(of, input.data<T>(), w.data<T>(),
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
