#pragma once

#include <cstdint>
#include <vector>

#include "lockstep/tensor/activation.hpp"
#include "tensor/windows.hpp"

// Numeric kernels on images of (channels, depth, height, width), for T = float and double. Padded images and
// columns are read and written up to `slack` elements beyond their end.
namespace lockstep::kernels {

inline constexpr std::int64_t slack = 16;

/// Of the pixels that taps see in a padded image, from that which their window begins at.
std::vector<std::int64_t> tap_offsets(const Windows& windows);

/// Copies an image into the middle of a padded one, and leaves its padding as it is.
template <class T>
void pad(const Windows& windows, std::int64_t channels, const T* image, T* padded);

/// The adjoint of pad: image (+)= the middle of the padded one.
template <class T>
void crop(const Windows& windows, std::int64_t channels, const T* padded, T* image,
          bool accumulate);

/// columns[channel, tap][window] = what the tap sees in the window of a padded image.
template <class T>
void im2col(const Windows& windows, std::int64_t channels, const T* padded, T* columns);

/// The adjoint of im2col: adds each element of columns to the pixel that it came from.
template <class T>
void col2im(const Windows& windows, std::int64_t channels, const T* columns, T* padded);

/// The weight (channels, maps, taps) of the convolution whose adjoint has the weight (maps, channels, taps): the gradient of
/// an image with stride 1 is that convolution of the gradient.
template <class T>
void turn_weight(std::int64_t maps, std::int64_t channels, std::int64_t taps, const T* weight,
                 T* turned);

/// y (maps, windows) = f(results + bias), where the `leading` results of a map are those of windows that begin at one
/// pixel of a padded image after the other; without a bias where that is nullptr.
template <class T>
void take_windows(const Windows& windows, std::int64_t maps, const T* results, std::int64_t leading,
                  const T* bias, Activation f, T* y);

/// y (maps, windows) += results, as take_windows() finds them.
template <class T>
void add_windows(const Windows& windows, std::int64_t maps, const T* results, std::int64_t leading,
                 T* y);

}  // namespace lockstep::kernels
