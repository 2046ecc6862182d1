#include "tensor/pooling.hpp"

#include <algorithm>
#include <array>
#include <vector>

namespace lockstep::kernels {
namespace {

// The windows that cover an image without a rest: most networks have these, and here those of all
// channels are those of one tall image.
bool are_halves(const Windows& windows) {
  const auto halves = [](const WindowAxis& axis) {
    return axis.kernel == 2 && axis.stride == 2 && axis.padding == 0 && axis.extent % 2 == 0;
  };
  return windows.deep.extent == 1 && windows.deep.kernel == 1 && halves(windows.vertical) &&
         halves(windows.horizontal);
}

// Windows of a row that are looked at together, in loops that compilers make vectors of.
constexpr std::int64_t lanes = 16;

template <class T>
using Lanes = std::array<T, static_cast<std::size_t>(lanes)>;

// Their pixels.
template <class T>
struct Block {
  Lanes<T> top_left, top_right, bottom_left, bottom_right;
};

struct Halves {
  std::int64_t width, rows;  // in windows, of all channels
  std::int64_t rows_of_channel;

  Halves(const Windows& windows, std::int64_t channels)
      : width(windows.horizontal.count()),
        rows(channels * windows.vertical.count()),
        rows_of_channel(windows.vertical.count()) {}

  // Calls f(first window, its pixel, that in its channel, number of windows) for each block.
  template <class F>
  void for_each_block(F f) const {
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t i = 0; i < width; i += lanes) {
        f(row * width + i, 4 * row * width + 2 * i,
          static_cast<std::int32_t>(4 * (row % rows_of_channel) * width + 2 * i),
          std::min(lanes, width - i));
      }
    }
  }
  // Whether a block has room for windows that are not its own, up to the next rows.
  bool has_room(std::int64_t window) const { return window + 2 * lanes + width <= rows * width; }
};

template <class T>
void load(const T* top, std::int64_t row, std::int64_t count, Block<T>& block) {
  for (std::int64_t i = 0; i < count; ++i) {
    const auto lane = static_cast<std::size_t>(i);
    block.top_left[lane] = top[2 * i];
    block.top_right[lane] = top[2 * i + 1];
    block.bottom_left[lane] = top[row + 2 * i];
    block.bottom_right[lane] = top[row + 2 * i + 1];
  }
}

template <class T>
void find_maxima(const Block<T>& block, std::int32_t first, std::int32_t row, T* maxima,
                 std::int32_t* pixels) {
  for (std::size_t i = 0; i < block.top_left.size(); ++i) {
    T largest = block.top_left[i];
    std::int32_t pixel = 0;
    const auto compare = [&](T value, std::int32_t other) {
      const bool larger = (value > largest) | (value != value);
      largest = larger ? value : largest;
      pixel = larger ? other : pixel;
    };
    compare(block.top_right[i], 1);
    compare(block.bottom_left[i], row);
    compare(block.bottom_right[i], row + 1);
    maxima[i] = largest;
    pixels[i] = first + 2 * static_cast<std::int32_t>(i) + pixel;
  }
}

template <class T>
void pool_halves(const Halves& halves, const T* image, T* maxima, std::int32_t* pixels) {
  const std::int64_t row = 2 * halves.width;
  Block<T> block{};
  Lanes<T> largest;
  Lanes<std::int32_t> where;
  halves.for_each_block([&](std::int64_t window, std::int64_t pixel, std::int32_t in_channel,
                            std::int64_t count) {
    const bool whole = halves.has_room(window);
    // Of constant length: what is too much is overwritten by the next row.
    if (whole) {
      load(image + pixel, row, lanes, block);
      find_maxima(block, in_channel, static_cast<std::int32_t>(row), maxima + window,
                  pixels + window);
      return;
    }
    load(image + pixel, row, count, block);
    find_maxima(block, in_channel, static_cast<std::int32_t>(row), largest.data(), where.data());
    std::copy_n(largest.data(), count, maxima + window);
    std::copy_n(where.data(), count, pixels + window);
  });
}

template <class T>
void find_gradients(const T* maxima, const std::int32_t* pixels, std::int32_t first,
                    std::int32_t row, Block<T>& block) {
  for (std::size_t i = 0; i < block.top_left.size(); ++i) {
    const std::int32_t where = pixels[i] - first - 2 * static_cast<std::int32_t>(i);
    const T value = maxima[i];
    block.top_left[i] = where == 0 ? value : 0;
    block.top_right[i] = where == 1 ? value : 0;
    block.bottom_left[i] = where == row ? value : 0;
    block.bottom_right[i] = where == row + 1 ? value : 0;
  }
}

template <class T>
void store(const Block<T>& block, std::int64_t row, std::int64_t count, T* top) {
  for (std::int64_t i = 0; i < count; ++i) {
    top[2 * i] = block.top_left[static_cast<std::size_t>(i)];
    top[2 * i + 1] = block.top_right[static_cast<std::size_t>(i)];
  }
  for (std::int64_t i = 0; i < count; ++i) {
    top[row + 2 * i] = block.bottom_left[static_cast<std::size_t>(i)];
    top[row + 2 * i + 1] = block.bottom_right[static_cast<std::size_t>(i)];
  }
}

template <class T>
void unpool_halves(const Halves& halves, const T* maxima, const std::int32_t* pixels, T* image) {
  const std::int64_t row = 2 * halves.width;
  Block<T> block;
  Lanes<T> values{};
  Lanes<std::int32_t> where{};
  halves.for_each_block([&](std::int64_t window, std::int64_t pixel, std::int32_t in_channel,
                            std::int64_t count) {
    // What is too much of the upper row must not reach what is there of the lower one already.
    const bool whole = halves.has_room(window) && (count == lanes || halves.width < lanes);
    if (!whole) {
      std::copy_n(maxima + window, count, values.data());
      std::copy_n(pixels + window, count, where.data());
    }
    find_gradients(whole ? maxima + window : values.data(), whole ? pixels + window : where.data(),
                   in_channel, static_cast<std::int32_t>(row), block);
    if (whole) {
      store(block, row, lanes, image + pixel);
    } else {
      store(block, row, count, image + pixel);
    }
  });
}

// Calls f(first window of a row, those of the row that see the image, channel, pixel of the first one,
// distance of pixels) for each row of windows and each tap, in the order of taps.
template <class F>
void for_each_tap(const Windows& windows, std::int64_t channels, F f) {
  const auto& [deep, vertical, horizontal] = windows;
  std::int64_t window = 0;
  for (std::int64_t channel = 0; channel < channels; ++channel) {
    for (std::int64_t layer = 0; layer < deep.count(); ++layer) {
      const WindowAxis::Range layers = deep.taps_inside(layer);
      for (std::int64_t row = 0; row < vertical.count(); ++row, window += horizontal.count()) {
        const WindowAxis::Range rows = vertical.taps_inside(row);
        for (std::int64_t i = layers.first; i < layers.end; ++i) {
          const std::int64_t z = deep.pixel(layer, i);
          for (std::int64_t j = rows.first; j < rows.end; ++j) {
            const std::int64_t line =
                (z * vertical.extent + vertical.pixel(row, j)) * horizontal.extent;
            for (std::int64_t k = 0; k < horizontal.kernel; ++k) {
              f(window, horizontal.inside(k), channel, line + horizontal.pixel(0, k),
                horizontal.stride);
            }
          }
        }
      }
    }
  }
}

constexpr std::int32_t none = -1;

// Of windows first ≤ i < end of a row, what one tap of them sees: pixel `pixel` + i · stride.
template <class T>
void pool_tap(WindowAxis::Range windows, const T* image, std::int64_t pixel, std::int64_t stride,
              T* maxima, std::int32_t* pixels) {
  for (std::int64_t i = windows.first; i < windows.end; ++i) {
    const T value = image[pixel + i * stride];
    const bool larger = value > maxima[i] || value != value || pixels[i] == none;
    if (!larger) continue;
    maxima[i] = value;
    pixels[i] = static_cast<std::int32_t>(pixel + i * stride);
  }
}

}  // namespace

template <class T>
void max_pool(const Windows& windows, std::int64_t channels, const T* image, T* maxima,
              std::int32_t* pixels) {
  if (are_halves(windows)) return pool_halves(Halves(windows, channels), image, maxima, pixels);
  std::fill_n(pixels, channels * windows.count(), none);
  for_each_tap(windows, channels,
               [=](std::int64_t window, WindowAxis::Range range, std::int64_t channel,
                   std::int64_t pixel, std::int64_t stride) {
                 pool_tap(range, image + channel * windows.pixels(), pixel, stride, maxima + window,
                          pixels + window);
               });
}

template <class T>
void max_unpool(const Windows& windows, std::int64_t channels, const T* maxima,
                const std::int32_t* pixels, T* image, bool accumulate) {
  if (are_halves(windows) && !accumulate) {
    return unpool_halves(Halves(windows, channels), maxima, pixels, image);
  }
  const std::int64_t count = windows.count();
  for (std::int64_t channel = 0; channel < channels; ++channel) {
    if (!accumulate) std::fill_n(image, windows.pixels(), T{0});
    for (std::int64_t i = 0; i < count; ++i) image[pixels[i]] += maxima[i];
    image += windows.pixels(), maxima += count, pixels += count;
  }
}

namespace {

// Calls f(window, 1 / the number of taps that count in it) for each.
template <class F>
void for_each_share(const Windows& windows, std::int64_t channels, bool count_padding, F f) {
  const auto& [deep, vertical, horizontal] = windows;
  const auto taps = [count_padding](const WindowAxis& axis, std::int64_t window) {
    const WindowAxis::Range inside = axis.taps_inside(window);
    return count_padding ? axis.kernel : inside.end - inside.first;
  };
  std::int64_t window = 0;
  for (std::int64_t channel = 0; channel < channels; ++channel) {
    for (std::int64_t layer = 0; layer < deep.count(); ++layer) {
      for (std::int64_t row = 0; row < vertical.count(); ++row) {
        const std::int64_t of_row = taps(deep, layer) * taps(vertical, row);
        for (std::int64_t i = 0; i < horizontal.count(); ++i, ++window) {
          f(window, of_row * taps(horizontal, i));
        }
      }
    }
  }
}

}  // namespace

template <class T>
void average_pool(const Windows& windows, std::int64_t channels, bool count_padding, const T* image,
                  T* means) {
  std::fill_n(means, channels * windows.count(), T{0});
  for_each_tap(windows, channels,
               [=](std::int64_t window, WindowAxis::Range range, std::int64_t channel,
                   std::int64_t pixel, std::int64_t stride) {
                 const T* from = image + channel * windows.pixels() + pixel;
                 for (std::int64_t i = range.first; i < range.end; ++i) {
                   means[window + i] += from[i * stride];
                 }
               });
  for_each_share(windows, channels, count_padding, [means](std::int64_t window, std::int64_t taps) {
    means[window] /= static_cast<T>(taps);
  });
}

template <class T>
void average_unpool(const Windows& windows, std::int64_t channels, bool count_padding,
                    const T* means, T* image) {
  std::vector<T> shares(static_cast<std::size_t>(channels * windows.count()));
  for_each_share(windows, channels, count_padding,
                 [means, to = shares.data()](std::int64_t window, std::int64_t taps) {
                   to[window] = means[window] / static_cast<T>(taps);
                 });
  for_each_tap(
      windows, channels,
      [=, from = shares.data()](std::int64_t window, WindowAxis::Range range, std::int64_t channel,
                                std::int64_t pixel, std::int64_t stride) {
        T* to = image + channel * windows.pixels() + pixel;
        for (std::int64_t i = range.first; i < range.end; ++i) {
          to[i * stride] += from[window + i];
        }
      });
}

#define LOCKSTEP_INSTANTIATE(T)                                                                \
  template void max_pool<T>(const Windows&, std::int64_t, const T*, T*, std::int32_t*);        \
  template void max_unpool<T>(const Windows&, std::int64_t, const T*, const std::int32_t*, T*, \
                              bool);                                                           \
  template void average_pool<T>(const Windows&, std::int64_t, bool, const T*, T*);             \
  template void average_unpool<T>(const Windows&, std::int64_t, bool, const T*, T*);
LOCKSTEP_INSTANTIATE(float)
LOCKSTEP_INSTANTIATE(double)
#undef LOCKSTEP_INSTANTIATE

}  // namespace lockstep::kernels
