#include "tensor/pooling.hpp"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>
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

template <class T, int n>
struct VectorOf {
  typedef T Type __attribute__((vector_size(n * sizeof(T))));
};
template <class T, int n>
using Lanes = typename VectorOf<T, n>::Type;

template <class Vector, class T>
Vector load(const T* from) {
  Vector vector;
  std::memcpy(&vector, from, sizeof(vector));
  return vector;
}
template <class Vector, class T>
void store(const Vector& vector, T* to) {
  std::memcpy(to, &vector, sizeof(vector));
}

// Of 2n numbers, as two vectors since compilers are bad at longer ones than the processor has: the even or odd ones.
template <int odd, class Vector, int... i>
Vector every_other(Vector first, Vector second, std::integer_sequence<int, i...>) {
  return __builtin_shufflevector(first, second, 2 * i + odd...);
}
// From number `begin` on, those of two vectors in turns.
template <int begin, class Vector, int... i>
Vector in_turns(Vector even, Vector odd, std::integer_sequence<int, i...>) {
  constexpr int n = sizeof...(i);
  return __builtin_shufflevector(even, odd, ((begin + i) % 2 * n + (begin + i) / 2)...);
}

// Of n windows in a row the pixels, or their gradients.
template <class T, int n>
struct Block {
  using Vector = Lanes<T, n>;
  Vector top_left, top_right, bottom_left, bottom_right;

  Block() = default;
  Block(const T* top, const T* bottom) {
    read(top, top_left, top_right);
    read(bottom, bottom_left, bottom_right);
  }
  void write(T* top, T* bottom) const {
    write(top_left, top_right, top);
    write(bottom_left, bottom_right, bottom);
  }

 private:
  static constexpr std::make_integer_sequence<int, n> lanes{};

  static void read(const T* row, Vector& left, Vector& right) {
    const auto first = load<Vector>(row), second = load<Vector>(row + n);
    left = every_other<0>(first, second, lanes);
    right = every_other<1>(first, second, lanes);
  }
  static void write(const Vector& left, const Vector& right, T* row) {
    store(in_turns<0>(left, right, lanes), row);
    store(in_turns<n>(left, right, lanes), row + n);
  }
};

struct Halves {
  std::int64_t width, rows;  // in windows, of all channels
  std::int64_t rows_of_channel;

  Halves(const Windows& windows, std::int64_t channels)
      : width(windows.horizontal.count()),
        rows(channels * windows.vertical.count()),
        rows_of_channel(windows.vertical.count()) {}

  // Calls f(first window, its pixel, that in its channel, number of windows) for each block of up to n. The last one of a
  // row comes first, so that what is written beyond the row is overwritten by what belongs there.
  template <int n, class F>
  void for_each_block(F f) const {
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t i = (width - 1) / n * n; i >= 0; i -= n) {
        f(row * width + i, 4 * row * width + 2 * i,
          static_cast<std::int32_t>(4 * (row % rows_of_channel) * width + 2 * i),
          std::min<std::int64_t>(n, width - i));
      }
    }
  }
  // Whether a block of n is inside, with what is not its own.
  bool has_room(std::int64_t window, std::int64_t n) const {
    return window + n + width <= rows * width;
  }
  // Calls f(as many windows of T as a block should have), a constant.
  template <class T, class F>
  void with_block(F f) const {
    constexpr int most = 64 / sizeof(T);
    if (width <= most / 2) return f(std::integral_constant<int, most / 2>());
    f(std::integral_constant<int, most>());
  }
};

// 0, 2, 4 …
template <int n>
Lanes<std::int32_t, n> even_numbers() {
  Lanes<std::int32_t, n> numbers;
  for (int i = 0; i < n; ++i) numbers[i] = 2 * i;
  return numbers;
}

template <class T, int n>
void find_maxima(const Block<T, n>& block, std::int32_t first, std::int32_t row, T* maxima,
                 std::int32_t* pixels) {
  using Pixels = Lanes<std::int32_t, n>;
  Lanes<T, n> largest = block.top_left;
  Pixels pixel{};
  const auto compare = [&](Lanes<T, n> values, std::int32_t other) {
    const auto larger = (values > largest) | (values != values);
    largest = larger ? values : largest;
    pixel = __builtin_convertvector(larger, Pixels) ? other + Pixels{} : pixel;
  };
  compare(block.top_right, 1);
  compare(block.bottom_left, row);
  compare(block.bottom_right, row + 1);
  store(largest, maxima);
  store(first + even_numbers<n>() + pixel, pixels);
}

template <class T, int n>
void pool_halves(const Halves& halves, const T* image, T* maxima, std::int32_t* pixels) {
  const std::int64_t row = 2 * halves.width;
  const auto row_in_channel = static_cast<std::int32_t>(row);
  halves.for_each_block<n>(
      [&](std::int64_t window, std::int64_t pixel, std::int32_t in_channel, std::int64_t count) {
        const T* const top = image + pixel;
        if (halves.has_room(window, n)) {
          find_maxima(Block<T, n>(top, top + row), in_channel, row_in_channel, maxima + window,
                      pixels + window);
          return;
        }
        T upper[2 * n] = {}, lower[2 * n] = {}, largest[n];
        std::int32_t where[n];
        std::copy_n(top, 2 * count, upper);
        std::copy_n(top + row, 2 * count, lower);
        find_maxima(Block<T, n>(upper, lower), in_channel, row_in_channel, largest, where);
        std::copy_n(largest, count, maxima + window);
        std::copy_n(where, count, pixels + window);
      });
}

template <class T, int n>
Block<T, n> gradients(const T* maxima, const std::int32_t* pixels, std::int32_t first,
                      std::int32_t row) {
  const auto values = load<Lanes<T, n>>(maxima);
  const auto where = load<Lanes<std::int32_t, n>>(pixels) - first - even_numbers<n>();
  const auto at = [&](std::int32_t pixel) {
    using Truths = decltype(values > values);
    return __builtin_convertvector(where == pixel, Truths) ? values : Lanes<T, n>{};
  };
  Block<T, n> block;
  block.top_left = at(0), block.top_right = at(1);
  block.bottom_left = at(row), block.bottom_right = at(row + 1);
  return block;
}

template <class T, int n>
void unpool_halves(const Halves& halves, const T* maxima, const std::int32_t* pixels, T* image) {
  const std::int64_t row = 2 * halves.width;
  const auto row_in_channel = static_cast<std::int32_t>(row);
  halves.for_each_block<n>(
      [&](std::int64_t window, std::int64_t pixel, std::int32_t in_channel, std::int64_t count) {
        T* const top = image + pixel;
        if (halves.has_room(window, n)) {
          gradients<T, n>(maxima + window, pixels + window, in_channel, row_in_channel)
              .write(top, top + row);
          return;
        }
        T values[n] = {}, upper[2 * n], lower[2 * n];
        std::int32_t where[n] = {};
        std::copy_n(maxima + window, count, values);
        std::copy_n(pixels + window, count, where);
        gradients<T, n>(values, where, in_channel, row_in_channel).write(upper, lower);
        std::copy_n(upper, 2 * count, top);
        std::copy_n(lower, 2 * count, top + row);
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
  if (are_halves(windows)) {
    const Halves halves(windows, channels);
    return halves.with_block<T>(
        [&](auto n) { pool_halves<T, n()>(halves, image, maxima, pixels); });
  }
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
    const Halves halves(windows, channels);
    return halves.with_block<T>(
        [&](auto n) { unpool_halves<T, n()>(halves, maxima, pixels, image); });
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
