#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "lockstep/tensor/random.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "tensor/convolution.hpp"
#include "tensor/pooling.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::kernels {
namespace images_test {

template <class T>
class Images : public ::testing::Test {};
using Floating = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Images, Floating);

// Integers, so that sums are exact and many are equal.
template <class T>
std::vector<T> integers(std::int64_t count, std::uint64_t seed) {
  std::vector<T> numbers(static_cast<std::size_t>(count));
  std::uint64_t i = 0;
  for (T& number : numbers) number = static_cast<T>(RandomKey(seed).below(9, i++)) - 4;
  return numbers;
}

std::vector<Windows> all_windows() {
  std::vector<Windows> all;
  for (const std::int64_t width : {1, 2, 7, 14, 15, 16, 17, 28, 32, 33, 50}) {
    for (const std::int64_t height : {1, 2, 5, 6}) {
      for (const std::int64_t kernel : {1, 2, 3}) {
        for (const std::int64_t stride : {1, 2, 3}) {
          for (const std::int64_t padding : {0, 1}) {
            if (padding > kernel / 2) continue;
            if (std::min(width, height) + 2 * padding < kernel) continue;
            all.push_back(
                {{}, {height, kernel, stride, padding}, {width, kernel, stride, padding}});
          }
        }
      }
    }
  }
  all.push_back({{}, {6, 2, 2, 0}, {9, 3, 1, 1}});
  all.push_back({{}, {6, 2, 1, 0}, {8, 2, 2, 0}});
  all.push_back({{3, 2, 1, 1}, {4, 2, 2, 0}, {6, 2, 2, 0}});
  all.push_back({{5, 3, 2, 1}, {4, 2, 1, 1}, {17, 3, 1, 1}});
  all.push_back({{1, 1, 1, 0}, {7, 3, 1, 1, 2}, {20, 3, 2, 1, 3}});
  all.push_back({{4, 2, 1, 0, 3}, {3, 1, 1, 0}, {33, 2, 1, 1, 4}});
  return all;
}

constexpr std::int64_t channels = 3;

// Calls f(channel, window, tap, pixel of all channels or -1) for all that a kernel sees.
template <class F>
void for_each_sight(const Windows& windows, F f) {
  const WindowAxis &deep = windows.deep, &vertical = windows.vertical,
                   &horizontal = windows.horizontal;
  const auto pixel = [](const WindowAxis& axis, std::int64_t window, std::int64_t tap) {
    const std::int64_t found = window * axis.stride - axis.padding + tap * axis.dilation;
    return found >= 0 && found < axis.extent ? found : -1;
  };
  for (std::int64_t channel = 0; channel < channels; ++channel) {
    for (std::int64_t window = 0; window < windows.count(); ++window) {
      for (std::int64_t tap = 0; tap < windows.taps(); ++tap) {
        const std::int64_t row = window / horizontal.count(), line = tap / horizontal.kernel;
        const std::int64_t x =
            pixel(horizontal, window % horizontal.count(), tap % horizontal.kernel);
        const std::int64_t y = pixel(vertical, row % vertical.count(), line % vertical.kernel);
        const std::int64_t z = pixel(deep, row / vertical.count(), line / vertical.kernel);
        const bool inside = x >= 0 && y >= 0 && z >= 0;
        f(channel, window, tap,
          inside ? channel * windows.pixels() + (z * vertical.extent + y) * horizontal.extent + x
                 : -1);
      }
    }
  }
}

std::string text(const Windows& windows) {
  std::vector<std::int64_t> numbers;
  for (const WindowAxis& axis : {windows.deep, windows.vertical, windows.horizontal}) {
    numbers.insert(numbers.end(),
                   {axis.extent, axis.kernel, axis.stride, axis.padding, axis.dilation});
  }
  return ::testing::PrintToString(numbers);
}

std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

TYPED_TEST(Images, columns_are_what_each_tap_sees) {
  using T = TypeParam;
  for (const Windows& windows : all_windows()) {
    const std::vector<T> image = integers<T>(channels * windows.pixels(), 1);
    std::vector<T> padded(at(channels * windows.padded_pixels() + slack));
    std::vector<T> columns(at(channels * windows.taps() * windows.count() + slack));
    pad(windows, channels, image.data(), padded.data());
    im2col(windows, channels, padded.data(), columns.data());
    for_each_sight(windows, [&](auto channel, auto window, auto tap, auto pixel) {
      const auto row = channel * windows.taps() + tap;
      ASSERT_EQ(columns[at(row * windows.count() + window)], pixel < 0 ? 0 : image[at(pixel)])
          << text(windows);
    });
  }
}

TYPED_TEST(Images, columns_are_added_to_the_pixels_that_they_came_from) {
  using T = TypeParam;
  for (const Windows& windows : all_windows()) {
    std::vector<T> columns = integers<T>(channels * windows.taps() * windows.count(), 2);
    std::vector<T> expected(at(channels * windows.pixels()));
    for_each_sight(windows, [&](auto channel, auto window, auto tap, auto pixel) {
      const auto row = channel * windows.taps() + tap;
      if (pixel >= 0) expected[at(pixel)] += columns[at(row * windows.count() + window)];
    });
    columns.resize(columns.size() + at(slack), std::numeric_limits<T>::quiet_NaN());
    std::vector<T> padded(at(channels * windows.padded_pixels() + slack));
    std::vector<T> found(expected.size(), 5);
    col2im(windows, channels, columns.data(), padded.data());
    crop(windows, channels, padded.data(), found.data(), false);
    EXPECT_EQ(found, expected) << text(windows);
    crop(windows, channels, padded.data(), found.data(), true);
    for (T& number : expected) number *= 2;
    EXPECT_EQ(found, expected) << text(windows);
  }
}

TYPED_TEST(Images, pooling_finds_the_first_maximum_or_the_last_nan) {
  using T = TypeParam;
  for (const Windows& windows : all_windows()) {
    std::vector<T> image = integers<T>(channels * windows.pixels(), 3);
    for (std::size_t i = 0; i < image.size(); i += 11) {
      image[i] = std::numeric_limits<T>::quiet_NaN();
    }
    for (std::size_t i = 4; i < image.size(); i += 5) {
      image[i] = -std::numeric_limits<T>::infinity();
    }
    const std::size_t count = at(channels * windows.count());
    std::vector<std::int32_t> expected(count, -1), pixels(count, -5);
    for_each_sight(windows, [&](auto channel, auto window, auto, auto pixel) {
      if (pixel < 0) return;
      std::int32_t& best = expected[at(channel * windows.count() + window)];
      const T value = image[at(pixel)];
      const std::int64_t corner = channel * windows.pixels();
      if (best < 0 || value > image[at(corner + best)] || std::isnan(value)) {
        best = static_cast<std::int32_t>(pixel - corner);
      }
    });
    std::vector<T> maxima(count);
    max_pool(windows, channels, image.data(), maxima.data(), pixels.data());
    ASSERT_EQ(pixels, expected) << text(windows);
    for (std::size_t i = 0; i < count; ++i) {
      const T value = image[i / at(windows.count()) * at(windows.pixels()) + at(pixels[i])];
      ASSERT_TRUE(maxima[i] == value || (std::isnan(maxima[i]) && std::isnan(value)));
    }

    const std::vector<T> gradients = integers<T>(channels * windows.count(), 4);
    std::vector<T> sums(image.size()), found(image.size(), 5);
    for (std::size_t i = 0; i < count; ++i) {
      sums[i / at(windows.count()) * at(windows.pixels()) + at(pixels[i])] += gradients[i];
    }
    max_unpool(windows, channels, gradients.data(), pixels.data(), found.data(), false);
    EXPECT_EQ(found, sums) << text(windows);
    max_unpool(windows, channels, gradients.data(), pixels.data(), found.data(), true);
    for (T& number : sums) number *= 2;
    EXPECT_EQ(found, sums) << text(windows);
  }
}

}  // namespace images_test
}  // namespace lockstep::kernels
