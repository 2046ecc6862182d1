#include "tensor/convolution.hpp"

#include <algorithm>

namespace lockstep::kernels {

WindowAxis::Range WindowAxis::inside(std::int64_t tap) const {
  // The number of windows in which the tap is at least `distance` pixels from its first place.
  const auto windows_before = [this](std::int64_t distance) {
    return distance <= 0 ? 0 : std::min((distance - 1) / stride + 1, count());
  };
  return {windows_before(padding - tap), windows_before(extent + padding - tap)};
}

WindowAxis::Range WindowAxis::seen(std::int64_t window) const {
  const std::int64_t first = window * stride - padding;
  return {std::max<std::int64_t>(first, 0), std::min(first + kernel, extent)};
}

namespace {

// Calls f(row, pixel, first, end) for each tap and each row of windows: in the windows
// first ≤ i < end of the row, which begins at element `row` of the columns, the tap sees `pixel`,
// pixel + stride, …
template <class F>
void for_each_row(const Windows& windows, std::int64_t channels, F f) {
  const auto& [vertical, horizontal] = windows;
  const std::int64_t rows = vertical.count(), width = horizontal.count();
  std::int64_t row = 0;
  for (std::int64_t channel = 0; channel < channels; ++channel) {
    for (std::int64_t y = 0; y < vertical.kernel; ++y) {
      const auto [top, bottom] = vertical.inside(y);
      for (std::int64_t x = 0; x < horizontal.kernel; ++x) {
        const auto [left, right] = horizontal.inside(x);
        const std::int64_t corner = channel * windows.pixels() + horizontal.pixel(left, x);
        for (std::int64_t i = 0; i < rows; ++i, row += width) {
          if (i < top || i >= bottom || left == right) {
            f(row, std::int64_t{0}, std::int64_t{0}, std::int64_t{0});
          } else {
            f(row, corner + vertical.pixel(i, y) * horizontal.extent, left, right);
          }
        }
      }
    }
  }
}

}  // namespace

template <class T>
void im2col(const Windows& windows, std::int64_t channels, const T* image, T* columns) {
  const std::int64_t width = windows.horizontal.count(), stride = windows.horizontal.stride;
  for_each_row(windows, channels,
               [=](std::int64_t row, std::int64_t pixel, std::int64_t first, std::int64_t end) {
                 T* out = columns + row;
                 const T* in = image + pixel;
                 for (std::int64_t i = 0; i < first; ++i) out[i] = 0;
                 if (stride == 1) {
                   std::copy_n(in, end - first, out + first);
                 } else {
                   for (std::int64_t i = first; i < end; ++i) out[i] = in[(i - first) * stride];
                 }
                 for (std::int64_t i = end; i < width; ++i) out[i] = 0;
               });
}

template <class T>
void col2im(const Windows& windows, std::int64_t channels, const T* columns, T* image) {
  const std::int64_t stride = windows.horizontal.stride;
  for_each_row(windows, channels,
               [=](std::int64_t row, std::int64_t pixel, std::int64_t first, std::int64_t end) {
                 const T* in = columns + row + first;
                 T* out = image + pixel;
                 if (stride == 1) {
                   for (std::int64_t i = 0; i < end - first; ++i) out[i] += in[i];
                 } else {
                   for (std::int64_t i = 0; i < end - first; ++i) out[i * stride] += in[i];
                 }
               });
}

template <class T>
void max_pool(const Windows& windows, std::int64_t channels, const T* image, T* maxima,
              std::int64_t* pixels) {
  const auto& [vertical, horizontal] = windows;
  const std::int64_t rows = vertical.count(), width = horizontal.count();
  for (std::int64_t channel = 0; channel < channels; ++channel, image += windows.pixels()) {
    for (std::int64_t row = 0; row < rows; ++row) {
      const auto [top, bottom] = vertical.seen(row);
      for (std::int64_t column = 0; column < width; ++column) {
        const auto [left, right] = horizontal.seen(column);
        std::int64_t largest = top * horizontal.extent + left;
        for (std::int64_t y = top; y < bottom; ++y) {
          for (std::int64_t x = left; x < right; ++x) {
            const std::int64_t pixel = y * horizontal.extent + x;
            const T value = image[pixel];
            // No branch, which would mostly be mispredicted.
            const bool larger = (value > image[largest]) | (value != value);
            largest += (pixel - largest) & -std::int64_t{larger};
          }
        }
        *maxima++ = image[largest];
        *pixels++ = largest;
      }
    }
  }
}

template <class T>
void max_unpool(const Windows& windows, std::int64_t channels, const T* maxima,
                const std::int64_t* pixels, T* image) {
  const std::int64_t count = windows.count();
  for (std::int64_t channel = 0; channel < channels; ++channel) {
    for (std::int64_t i = 0; i < count; ++i) image[pixels[i]] += maxima[i];
    image += windows.pixels(), maxima += count, pixels += count;
  }
}

#define LOCKSTEP_INSTANTIATE(T)                                                         \
  template void im2col<T>(const Windows&, std::int64_t, const T*, T*);                  \
  template void col2im<T>(const Windows&, std::int64_t, const T*, T*);                  \
  template void max_pool<T>(const Windows&, std::int64_t, const T*, T*, std::int64_t*); \
  template void max_unpool<T>(const Windows&, std::int64_t, const T*, const std::int64_t*, T*);
LOCKSTEP_INSTANTIATE(float)
LOCKSTEP_INSTANTIATE(double)
#undef LOCKSTEP_INSTANTIATE

}  // namespace lockstep::kernels
