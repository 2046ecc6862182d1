#pragma once

#include <cstdint>
#include <memory>

#include "autograd/window_options.hpp"
#include "lockstep/autograd/convolution.hpp"
#include "lockstep/autograd/pooling.hpp"
#include "lockstep/autograd/variable.hpp"

namespace lockstep::autograd {

struct Pooling {
  kernels::Windows windows;
  std::int64_t channels;  ///< of all samples
  Shape result;
};

/// That of x of the shape (n, channels, …). OptionError and ShapeError as max_pool2d documents.
Pooling pooling(const char* what, const Shape& x, const WindowOptions& options);
/// Of each maximum in such a result, where it was; ShapeError where images have too many pixels for that.
std::shared_ptr<std::int32_t[]> pixels_of_maxima(const char* what, const Shape& x,
                                                 const Pooling& pooling);

/// max_pool2d of conv2d(x, weight, bias, options, f), and the like in one and three dimensions: the same bits and errors, and mostly without
/// memory of what the maxima are taken from.
template <class Size>
Variable pooled_convolution(const Variable& x, const Variable& weight, const Variable& bias,
                            const ConvolutionOptions<Size>& options, Activation f, Size kernel,
                            const PoolingOptions<Size>& pooling);

}  // namespace lockstep::autograd
