#include "lockstep/nn/convolution.hpp"

#include <algorithm>

#include "autograd/max_pooling.hpp"
#include "nn/reset.hpp"

namespace lockstep::nn {
namespace {

using autograd::axes_of;
using autograd::spread;

// "Conv2d"
template <class Size>
constexpr const char* name_of(const char* line, const char* image, const char* deep) {
  return axes_of<Size> == 1 ? line : axes_of<Size> == 2 ? image : deep;
}

template <class Size>
Tensor kernels_of(std::int64_t first, std::int64_t second, Size kernel, DType dtype) {
  return Tensor::empty(autograd::shape_of(first, second, axes_of<Size>, spread(kernel, 1)), dtype);
}

// Of these channels; a number of groups that does not divide them is refused before.
template <class Size, class Options>
void check(const char* what, std::int64_t in, std::int64_t out, Size kernel,
           const Options& options) {
  auto windows = autograd::window_options(options);
  windows.kernel = spread(kernel, 1);
  autograd::check_windows(what, windows);
  autograd::check_groups(what, in, out, options.groups);
}

// One of the three, by the number of axes.
template <class Size, class Line, class Image, class Deep, class... Operands>
Variable by_axes(Line line, Image image, Deep deep, const Operands&... operands) {
  if constexpr (axes_of<Size> == 1) {
    return line(operands...);
  } else if constexpr (axes_of<Size> == 2) {
    return image(operands...);
  } else {
    return deep(operands...);
  }
}

}  // namespace

template <class Size>
Conv<Size>::Conv(std::int64_t in, std::int64_t out, Size kernel, const ConvOptions<Size>& options)
    : options_{.stride = options.stride,
               .padding = options.padding,
               .dilation = options.dilation,
               .groups = options.groups} {
  check(name_of<Size>("Conv1d", "Conv2d", "Conv3d"), in, out, kernel, options_);
  weight = Parameter(kernels_of(out, in / options.groups, kernel, options.dtype));
  if (options.bias) bias = Parameter(Tensor::empty({out}, options.dtype));
  Conv::reset_parameters(RandomKey(0));
}

template <class Size>
void Conv<Size>::visit(Visitor& visitor) {
  visitor("weight", weight);
  visitor("bias", bias);
}

template <class Size>
void Conv<Size>::reset_parameters(RandomKey key) {
  reset(weight, bias, key);
}

template <class Size>
Variable Conv<Size>::forward(const Variable& x) {
  return forward(x, Activation::none);
}

template <class Size>
Variable Conv<Size>::forward(const Variable& x, Activation f) {
  return by_axes<Size>(conv1d, conv2d, conv3d, x, weight, bias, options_, f);
}

template <class Size>
Variable Conv<Size>::forward(const Variable& x, Activation f, const MaxPool<Size>& pooling) {
  return autograd::pooled_convolution(x, weight, bias, options_, f, pooling.kernel_,
                                      pooling.options_);
}

template <class Size>
ConvTranspose<Size>::ConvTranspose(std::int64_t in, std::int64_t out, Size kernel,
                                   const ConvTransposeOptions<Size>& options)
    : options_{.stride = options.stride,
               .padding = options.padding,
               .dilation = options.dilation,
               .groups = options.groups,
               .output_padding = options.output_padding} {
  const char* const what = name_of<Size>("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d");
  check(what, in, out, kernel, options_);
  autograd::check_output_padding(what, autograd::window_options(options_),
                                 spread(options.output_padding, 0));
  weight = Parameter(kernels_of(in, out / options.groups, kernel, options.dtype));
  if (options.bias) bias = Parameter(Tensor::empty({out}, options.dtype));
  ConvTranspose::reset_parameters(RandomKey(0));
}

template <class Size>
void ConvTranspose<Size>::visit(Visitor& visitor) {
  visitor("weight", weight);
  visitor("bias", bias);
}

template <class Size>
void ConvTranspose<Size>::reset_parameters(RandomKey key) {
  reset(weight, bias, key);
}

template <class Size>
Variable ConvTranspose<Size>::forward(const Variable& x) {
  return by_axes<Size>(conv_transpose1d, conv_transpose2d, conv_transpose3d, x, weight, bias,
                       options_);
}

template <class Size>
MaxPool<Size>::MaxPool(Size kernel, const PoolingOptions<Size>& options)
    : kernel_(kernel), options_(options) {
  autograd::check_pooling(name_of<Size>("MaxPool1d", "MaxPool2d", "MaxPool3d"),
                          autograd::pooling_options(kernel, options));
}

template <class Size>
Variable MaxPool<Size>::forward(const Variable& x) {
  return by_axes<Size>(max_pool1d, max_pool2d, max_pool3d, x, kernel_, options_);
}

template <class Size>
AvgPool<Size>::AvgPool(Size kernel, const AveragePoolingOptions<Size>& options)
    : kernel_(kernel), options_(options) {
  autograd::check_pooling(name_of<Size>("AvgPool1d", "AvgPool2d", "AvgPool3d"),
                          autograd::pooling_options(kernel, options));
}

template <class Size>
Variable AvgPool<Size>::forward(const Variable& x) {
  return by_axes<Size>(avg_pool1d, avg_pool2d, avg_pool3d, x, kernel_, options_);
}

Variable GlobalAvgPool::forward(const Variable& x) { return global_avg_pool(x); }

#define LOCKSTEP_INSTANTIATE(Size)    \
  template class Conv<Size>;          \
  template class ConvTranspose<Size>; \
  template class MaxPool<Size>;       \
  template class AvgPool<Size>;
LOCKSTEP_INSTANTIATE(std::int64_t)
LOCKSTEP_INSTANTIATE(Size2d)
LOCKSTEP_INSTANTIATE(Size3d)
#undef LOCKSTEP_INSTANTIATE

}  // namespace lockstep::nn
