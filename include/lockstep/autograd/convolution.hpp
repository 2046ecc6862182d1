#pragma once

#include <cstdint>

#include "lockstep/autograd/variable.hpp"
#include "lockstep/tensor/activation.hpp"

#pragma GCC visibility push(default)

// Differentiable operations on x of shape (n, channels, length), (n, channels, height, width) or (n, channels,
// depth, height, width), as f32 or f64; operands of two dtypes are a DTypeError. What becomes of a sample
// does not depend on the others of its batch, to the bit. A kernel is not flipped, as in PyTorch.
namespace lockstep {

/// A number for the height and one for the width. A single number stands for both.
struct Size2d {
  Size2d(std::int64_t both) : height(both), width(both) {}  // NOLINT: 3 is 3 × 3
  Size2d(std::int64_t height, std::int64_t width) : height(height), width(width) {}

  friend bool operator==(const Size2d&, const Size2d&) = default;

  std::int64_t height, width;
};

/// The same with the depth.
struct Size3d {
  Size3d(std::int64_t all) : depth(all), height(all), width(all) {}  // NOLINT: 3 is 3 × 3 × 3
  Size3d(std::int64_t depth, std::int64_t height, std::int64_t width)
      : depth(depth), height(height), width(width) {}

  friend bool operator==(const Size3d&, const Size3d&) = default;

  std::int64_t depth, height, width;
};

/// Size is std::int64_t for lines, Size2d for images, and Size3d for what is deep.
template <class Size = Size2d>
struct ConvolutionOptions {
  Size stride = 1;
  Size padding = 0;         ///< zeros on each side
  Size dilation = 1;        ///< from one tap of a kernel to the next
  std::int64_t groups = 1;  ///< of channels, each with kernels of its own
};

/// The convolution of x of (n, in, h, w) by a weight of (out, in / groups, kh, kw), plus a bias of (out) or
/// undefined: of (n, out, h', w') with h' = ⌊(h + 2 · padding - dilation · (kh - 1) - 1) / stride⌋ + 1,
/// and w' alike; f is applied to the result. Needs memory for in · kh · kw · h' · w' numbers and for padded
/// images of one sample, whatever n is: Chellapilla, Puri, Simard, "High performance convolutional neural
/// networks for document processing", 2006. ShapeError where these do not fit, or a kernel is larger than
/// the padded image; OptionError unless stride ≥ 1, dilation ≥ 1, 0 ≤ padding < 2³¹, and groups ≥ 1 divide
/// the channels.
Variable conv2d(const Variable& x, const Variable& weight, const Variable& bias,
                const ConvolutionOptions<Size2d>& options = {}, Activation f = Activation::none);
Variable conv1d(const Variable& x, const Variable& weight, const Variable& bias,
                const ConvolutionOptions<std::int64_t>& options = {},
                Activation f = Activation::none);
Variable conv3d(const Variable& x, const Variable& weight, const Variable& bias,
                const ConvolutionOptions<Size3d>& options = {}, Activation f = Activation::none);

template <class Size = Size2d>
struct TransposedOptions {
  Size stride = 1;
  Size padding = 0;  ///< what is cut off on each side
  Size dilation = 1;
  std::int64_t groups = 1;
  Size output_padding = 0;  ///< zeros at the end, beyond what windows reach
};

/// The transposed convolution of x of (n, in, h, w) by a weight of (in, out / groups, kh, kw), plus a bias of
/// (out) or undefined: of (n, out, h', w') with h' = (h - 1) · stride - 2 · padding + dilation · (kh - 1) +
/// output_padding + 1, and w' alike: the gradient of conv2d, by that weight, with respect to its input. Zeiler
/// et al., "Deconvolutional networks", 2010. Errors as in conv2d, and OptionError unless
/// 0 ≤ output_padding < max(stride, dilation).
Variable conv_transpose2d(const Variable& x, const Variable& weight, const Variable& bias,
                          const TransposedOptions<Size2d>& options = {});
Variable conv_transpose1d(const Variable& x, const Variable& weight, const Variable& bias,
                          const TransposedOptions<std::int64_t>& options = {});
Variable conv_transpose3d(const Variable& x, const Variable& weight, const Variable& bias,
                          const TransposedOptions<Size3d>& options = {});

}  // namespace lockstep

#pragma GCC visibility pop
