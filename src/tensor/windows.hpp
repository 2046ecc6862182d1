#pragma once

#include <algorithm>
#include <cstdint>

namespace lockstep::kernels {

/// The windows that a kernel sees along one axis of an image.
struct WindowAxis {
  std::int64_t extent, kernel, stride, padding;

  std::int64_t padded() const { return extent + 2 * padding; }
  std::int64_t count() const { return (padded() - kernel) / stride + 1; }

  struct Range {
    std::int64_t first, end;
  };
  /// The windows in which a tap of the kernel sees the image.
  Range inside(std::int64_t tap) const {
    return {windows_before(padding - tap), windows_before(extent + padding - tap)};
  }

 private:
  // The number of windows in which a tap is less than `distance` pixels from its first place.
  std::int64_t windows_before(std::int64_t distance) const {
    return distance <= 0 ? 0 : std::min((distance - 1) / stride + 1, count());
  }
};

struct Windows {
  WindowAxis vertical, horizontal;

  std::int64_t taps() const { return vertical.kernel * horizontal.kernel; }
  std::int64_t count() const { return vertical.count() * horizontal.count(); }
  std::int64_t pixels() const { return vertical.extent * horizontal.extent; }
  std::int64_t padded_pixels() const { return vertical.padded() * horizontal.padded(); }
};

}  // namespace lockstep::kernels
