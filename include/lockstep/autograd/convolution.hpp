#pragma once

#include <cstdint>
#include <optional>

#include "lockstep/autograd/variable.hpp"
#include "lockstep/tensor/activation.hpp"

#pragma GCC visibility push(default)

// Differentiable operations on images, x of shape (n, channels, height, width), as f32 or f64; operands
// of two dtypes are a DTypeError. What becomes of a sample does not depend on the others of its batch,
// to the bit.
namespace lockstep {

/// A number for the height and one for the width. A single number stands for both.
struct Size2d {
  Size2d(std::int64_t both) : height(both), width(both) {}  // NOLINT: 3 is 3 × 3
  Size2d(std::int64_t height, std::int64_t width) : height(height), width(width) {}

  friend bool operator==(const Size2d&, const Size2d&) = default;

  std::int64_t height, width;
};

struct ConvolutionOptions {
  Size2d stride = 1;
  Size2d padding = 0;  ///< zeros on each side
};

/// The convolution (without a flip of the kernel, as in PyTorch) of x of (n, in, h, w) by a weight of
/// (out, in, kh, kw), plus a bias of (out) or undefined: of (n, out, h', w') with
/// h' = ⌊(h + 2 · padding - kh) / stride⌋ + 1, and w' alike; f is applied to the result. Needs memory
/// for in · kh · kw · h' · w' numbers and for padded images of one sample, whatever n is: Chellapilla,
/// Puri, Simard, "High performance convolutional neural networks for document processing", 2006.
/// ShapeError where these do not fit, or a kernel is larger than the padded image; OptionError unless
/// stride ≥ 1 and 0 ≤ padding < 2³¹.
Variable conv2d(const Variable& x, const Variable& weight, const Variable& bias,
                const ConvolutionOptions& options = {}, Activation f = Activation::none);

struct PoolingOptions {
  std::optional<Size2d> stride = std::nullopt;  ///< by default the kernel; a pair is Size2d(2, 1)
  Size2d padding = 0;                           ///< on each side, by what is never a maximum
};

/// The maximum of each window of the kernel's size in x of (n, channels, h, w), with the sizes of
/// conv2d. The gradient goes to the first of equal maxima, row by row. A window with NaN gives NaN,
/// and the gradient to the last of them, as in PyTorch. ShapeError where a kernel is larger than the
/// padded image, or an image has 2³¹ pixels; OptionError unless kernel ≥ 1, stride ≥ 1, and
/// 0 ≤ padding ≤ kernel / 2.
Variable max_pool2d(const Variable& x, Size2d kernel, const PoolingOptions& options = {});

}  // namespace lockstep

#pragma GCC visibility pop
