#pragma once

#include <cstdint>
#include <optional>

#include "lockstep/autograd/convolution.hpp"

#pragma GCC visibility push(default)

// Differentiable operations on x of the shapes that convolution.hpp has, each channel by itself.
namespace lockstep {

template <class Size = Size2d>
struct PoolingOptions {
  std::optional<Size> stride = std::nullopt;  ///< by default the kernel; a pair is Size2d(2, 1)
  Size padding = 0;  ///< on each side: by what is never a maximum, or by zeros
};

/// The maximum of each window of the kernel's size, with the sizes of conv2d. The gradient goes to the first
/// of equal maxima, row by row. A window with NaN gives NaN, and the gradient to the last of them, as in
/// PyTorch. ShapeError where a kernel is larger than the padded image, or an image has 2³¹ pixels;
/// OptionError unless kernel ≥ 1, stride ≥ 1, and 0 ≤ padding ≤ kernel / 2.
Variable max_pool2d(const Variable& x, Size2d kernel, const PoolingOptions<Size2d>& options = {});
Variable max_pool1d(const Variable& x, std::int64_t kernel,
                    const PoolingOptions<std::int64_t>& options = {});
Variable max_pool3d(const Variable& x, Size3d kernel, const PoolingOptions<Size3d>& options = {});

template <class Size = Size2d>
struct AveragePoolingOptions {
  std::optional<Size> stride = std::nullopt;
  Size padding = 0;
  bool count_include_pad = true;  ///< whether a mean is that of all taps, or of those in the image
};

/// The mean of each window. Errors as of max_pool2d.
Variable avg_pool2d(const Variable& x, Size2d kernel,
                    const AveragePoolingOptions<Size2d>& options = {});
Variable avg_pool1d(const Variable& x, std::int64_t kernel,
                    const AveragePoolingOptions<std::int64_t>& options = {});
Variable avg_pool3d(const Variable& x, Size3d kernel,
                    const AveragePoolingOptions<Size3d>& options = {});

/// The mean of each channel: (n, channels), of x of (n, channels, …). ShapeError unless x has pixels.
Variable global_avg_pool(const Variable& x);

}  // namespace lockstep

#pragma GCC visibility pop
