#pragma once

#include <algorithm>
#include <cstdint>

namespace lockstep::kernels {

/// The windows that a kernel sees along one axis of an image, whose taps are `dilation` pixels apart.
struct WindowAxis {
  std::int64_t extent = 1, kernel = 1, stride = 1, padding = 0, dilation = 1;

  std::int64_t padded() const { return extent + 2 * padding; }
  /// Pixels from the first tap to the last one.
  std::int64_t reach() const { return dilation * (kernel - 1) + 1; }
  std::int64_t count() const { return (padded() - reach()) / stride + 1; }

  /// Of every stride-th pixel of the padded axis alone, from any of the first ones on, as far as windows see them: what a
  /// tap sees moves by one of these from a window to the next.
  WindowAxis phase() const {
    const std::int64_t seen = (reach() - 1) / stride + 1;
    return {.extent = count() + seen - 1, .kernel = seen};
  }

  /// What a tap sees in a window; outside of the image, where that is padded.
  std::int64_t pixel(std::int64_t window, std::int64_t tap) const {
    return window * stride + tap * dilation - padding;
  }

  struct Range {
    std::int64_t first, end;
  };
  /// The windows in which a tap of the kernel sees the image.
  Range inside(std::int64_t tap) const {
    const std::int64_t pixel = tap * dilation;
    return {windows_before(padding - pixel), windows_before(extent + padding - pixel)};
  }
  /// The taps of a window that see the image.
  Range taps_inside(std::int64_t window) const {
    const auto before = [this, window](std::int64_t end) {
      const std::int64_t distance = end - pixel(window, 0);
      return distance <= 0 ? 0 : std::min((distance - 1) / dilation + 1, kernel);
    };
    return {before(0), before(extent)};
  }

 private:
  // The number of windows in which a tap is less than `distance` pixels from its first place.
  std::int64_t windows_before(std::int64_t distance) const {
    return distance <= 0 ? 0 : std::min((distance - 1) / stride + 1, count());
  }
};

/// Those in images of (depth, height, width); the first one is 1 of flat images, as is the second one of
/// lines.
struct Windows {
  WindowAxis deep, vertical, horizontal;

  std::int64_t taps() const { return deep.kernel * vertical.kernel * horizontal.kernel; }
  std::int64_t count() const { return deep.count() * vertical.count() * horizontal.count(); }
  std::int64_t pixels() const { return deep.extent * vertical.extent * horizontal.extent; }
  bool strideless() const {
    return deep.stride == 1 && vertical.stride == 1 && horizontal.stride == 1;
  }
  /// There are as many of these as the strides multiplied.
  Windows phase() const { return {deep.phase(), vertical.phase(), horizontal.phase()}; }
  std::int64_t phases() const { return deep.stride * vertical.stride * horizontal.stride; }

  std::int64_t padded_pixels() const {
    return deep.padded() * vertical.padded() * horizontal.padded();
  }
};

}  // namespace lockstep::kernels
