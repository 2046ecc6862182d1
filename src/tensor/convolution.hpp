#pragma once

#include <cstdint>

// Numeric kernels on images of (channels, height, width), for T = float and double.
namespace lockstep::kernels {

/// The windows that a kernel sees along one axis of an image.
struct WindowAxis {
  std::int64_t extent, kernel, stride, padding;

  std::int64_t count() const { return (extent + 2 * padding - kernel) / stride + 1; }
  /// What a tap of the kernel sees in a window: outside [0, extent) it is padding.
  std::int64_t pixel(std::int64_t window, std::int64_t tap) const {
    return window * stride - padding + tap;
  }
  struct Range {
    std::int64_t first, end;
  };
  /// The windows in which a tap sees the image.
  Range inside(std::int64_t tap) const;
  /// The pixels that a window sees.
  Range seen(std::int64_t window) const;
};

struct Windows {
  WindowAxis vertical, horizontal;

  std::int64_t taps() const { return vertical.kernel * horizontal.kernel; }
  std::int64_t count() const { return vertical.count() * horizontal.count(); }
  std::int64_t pixels() const { return vertical.extent * horizontal.extent; }
};

/// columns[channel, tap][window] = what the tap sees in the window; 0 in the padding.
template <class T>
void im2col(const Windows& windows, std::int64_t channels, const T* image, T* columns);

/// The adjoint of im2col: adds each element of columns to the pixel that it came from.
template <class T>
void col2im(const Windows& windows, std::int64_t channels, const T* columns, T* image);

/// maxima[channel][window] and the pixel of each, in [0, height · width): the first of equal ones, the
/// last NaN. Every window must see a pixel.
template <class T>
void max_pool(const Windows& windows, std::int64_t channels, const T* image, T* maxima,
              std::int64_t* pixels);

/// The adjoint of max_pool: image[channel][pixels[channel][window]] += maxima[channel][window]
template <class T>
void max_unpool(const Windows& windows, std::int64_t channels, const T* maxima,
                const std::int64_t* pixels, T* image);

}  // namespace lockstep::kernels
