#include "tensor/convolution.hpp"

#include <algorithm>

#include "tensor/activations.hpp"

namespace lockstep::kernels {

namespace {

// Calls f(pixel of the image, pixel of the padded one) for each row.
template <class F>
void for_each_row(const Windows& windows, std::int64_t channels, F f) {
  const auto& [deep, vertical, horizontal] = windows;
  std::int64_t pixel = 0;
  for (std::int64_t channel = 0; channel < channels; ++channel) {
    for (std::int64_t z = deep.padding; z < deep.padding + deep.extent; ++z) {
      const std::int64_t first = channel * deep.padded() + z;
      for (std::int64_t y = vertical.padding; y < vertical.padding + vertical.extent; ++y) {
        f(pixel, (first * vertical.padded() + y) * horizontal.padded() + horizontal.padding);
        pixel += horizontal.extent;
      }
    }
  }
}

// Calls f(element of the columns, pixel of the padded image) for each tap and each row of windows: the
// tap sees the pixel in the first of them, and in the others those that follow by steps of the stride.
template <class F>
void for_each_tap(const Windows& windows, std::int64_t channels, F f) {
  const WindowAxis &deep = windows.deep, &vertical = windows.vertical,
                   &horizontal = windows.horizontal;
  const std::int64_t layers = deep.count(), rows = vertical.count(), width = horizontal.count();
  std::int64_t element = 0;
  const auto tap = [&](std::int64_t channel, std::int64_t z, std::int64_t y, std::int64_t x) {
    for (std::int64_t layer = 0; layer < layers; ++layer) {
      const std::int64_t first = channel * deep.padded() + layer * deep.stride + z;
      for (std::int64_t row = 0; row < rows; ++row, element += width) {
        f(element,
          (first * vertical.padded() + row * vertical.stride + y) * horizontal.padded() + x);
      }
    }
  };
  for (std::int64_t channel = 0; channel < channels; ++channel) {
    for (std::int64_t z = 0; z < deep.reach(); z += deep.dilation) {
      for (std::int64_t y = 0; y < vertical.reach(); y += vertical.dilation) {
        for (std::int64_t x = 0; x < horizontal.reach(); x += horizontal.dilation) {
          tap(channel, z, y, x);
        }
      }
    }
  }
}

}  // namespace

std::vector<std::int64_t> tap_offsets(const Windows& windows) {
  const auto& [deep, vertical, horizontal] = windows;
  std::vector<std::int64_t> offsets;
  for (std::int64_t z = 0; z < deep.reach(); z += deep.dilation) {
    for (std::int64_t y = 0; y < vertical.reach(); y += vertical.dilation) {
      for (std::int64_t x = 0; x < horizontal.reach(); x += horizontal.dilation) {
        offsets.push_back((z * vertical.padded() + y) * horizontal.padded() + x);
      }
    }
  }
  return offsets;
}

template <class T>
void pad(const Windows& windows, std::int64_t channels, const T* image, T* padded) {
  for_each_row(windows, channels, [&](std::int64_t from, std::int64_t to) {
    std::copy_n(image + from, windows.horizontal.extent, padded + to);
  });
}

template <class T>
void crop(const Windows& windows, std::int64_t channels, const T* padded, T* image,
          bool accumulate) {
  const std::int64_t width = windows.horizontal.extent;
  for_each_row(windows, channels, [=](std::int64_t to, std::int64_t from) {
    if (!accumulate) std::fill_n(image + to, width, T{0});
    for (std::int64_t i = 0; i < width; ++i) image[to + i] += padded[from + i];
  });
}

template <class T>
void im2col(const Windows& windows, std::int64_t channels, const T* padded, T* columns) {
  const std::int64_t width = windows.horizontal.count(), stride = windows.horizontal.stride;
  if (stride == 1) {
    // Whole blocks: what is too much is overwritten by the next row.
    for_each_tap(windows, channels, [=](std::int64_t element, std::int64_t pixel) {
      for (std::int64_t i = 0; i < width; i += slack) {
        std::copy_n(padded + pixel + i, slack, columns + element + i);
      }
    });
  } else {
    for_each_tap(windows, channels, [=](std::int64_t element, std::int64_t pixel) {
      for (std::int64_t i = 0; i < width; ++i) columns[element + i] = padded[pixel + i * stride];
    });
  }
}

template <class T>
void col2im(const Windows& windows, std::int64_t channels, const T* columns, T* padded) {
  const std::int64_t width = windows.horizontal.count(), stride = windows.horizontal.stride;
  if (stride == 1) {
    for_each_tap(windows, channels, [=](std::int64_t element, std::int64_t pixel) {
      for (std::int64_t i = 0; i < width; i += slack) {
        const T* in = columns + element + i;
        T* out = padded + pixel + i;
        for (std::int64_t j = 0; j < slack; ++j) out[j] += i + j < width ? in[j] : T{0};
      }
    });
  } else {
    for_each_tap(windows, channels, [=](std::int64_t element, std::int64_t pixel) {
      for (std::int64_t i = 0; i < width; ++i) padded[pixel + i * stride] += columns[element + i];
    });
  }
}

template <class T>
void turn_weight(std::int64_t maps, std::int64_t channels, std::int64_t taps, const T* weight,
                 T* turned) {
  for (std::int64_t map = 0; map < maps; ++map) {
    for (std::int64_t channel = 0; channel < channels; ++channel, weight += taps) {
      std::reverse_copy(weight, weight + taps, turned + (channel * maps + map) * taps);
    }
  }
}

namespace {

// Calls f(map, row of results, row of y) for each row of windows.
template <class T, class F>
void for_window_rows(const Windows& windows, std::int64_t maps, const T* results,
                     std::int64_t leading, T* y, F f) {
  const auto& [deep, vertical, horizontal] = windows;
  for (std::int64_t map = 0; map < maps; ++map, results += leading) {
    for (std::int64_t layer = 0; layer < deep.count(); ++layer) {
      const T* row = results + layer * vertical.padded() * horizontal.padded();
      for (std::int64_t i = 0; i < vertical.count(); ++i, row += horizontal.padded()) {
        f(map, row, y);
        y += horizontal.count();
      }
    }
  }
}

}  // namespace

template <class T>
void take_windows(const Windows& windows, std::int64_t maps, const T* results, std::int64_t leading,
                  const T* bias, Activation f, T* y) {
  const std::int64_t width = windows.horizontal.count();
  const auto take = [=](std::int64_t map, const T* row, T* out) {
    const T b = bias != nullptr ? bias[map] : -T{0};  // which changes not even the sign of a zero
    if (f == Activation::relu) {
      for (std::int64_t i = 0; i < width; ++i) out[i] = row[i] + b < 0 ? T{0} : row[i] + b;
    } else {
      for (std::int64_t i = 0; i < width; ++i) out[i] = row[i] + b;
    }
  };
  for_window_rows(windows, maps, results, leading, y, take);
  if (f != Activation::relu) activate(f, maps * windows.count(), y, y);
}

template <class T>
void add_windows(const Windows& windows, std::int64_t maps, const T* results, std::int64_t leading,
                 T* y) {
  const std::int64_t width = windows.horizontal.count();
  for_window_rows(windows, maps, results, leading, y, [=](std::int64_t, const T* row, T* out) {
    for (std::int64_t i = 0; i < width; ++i) out[i] += row[i];
  });
}

#define LOCKSTEP_INSTANTIATE(T)                                                                 \
  template void take_windows<T>(const Windows&, std::int64_t, const T*, std::int64_t, const T*, \
                                Activation, T*);                                                \
  template void add_windows<T>(const Windows&, std::int64_t, const T*, std::int64_t, T*);       \
  template void turn_weight<T>(std::int64_t, std::int64_t, std::int64_t, const T*, T*);         \
  template void pad<T>(const Windows&, std::int64_t, const T*, T*);                             \
  template void crop<T>(const Windows&, std::int64_t, const T*, T*, bool);                      \
  template void im2col<T>(const Windows&, std::int64_t, const T*, T*);                          \
  template void col2im<T>(const Windows&, std::int64_t, const T*, T*);
LOCKSTEP_INSTANTIATE(float)
LOCKSTEP_INSTANTIATE(double)
#undef LOCKSTEP_INSTANTIATE

}  // namespace lockstep::kernels
