#include "tensor/normalization.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "lockstep/tensor/random.hpp"
#include "lockstep/testing/mpi_test.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::kernels {
namespace normalization_test {

using Doubles = std::vector<double>;

// Floats, so that they are the same numbers in both types.
template <class T = double>
std::vector<T> numbers(std::int64_t count, std::uint64_t seed) {
  std::vector<T> all(static_cast<std::size_t>(count));
  std::uint64_t i = 0;
  for (T& number : all) {
    number = static_cast<T>(static_cast<float>(2 * RandomKey(seed).uniform(i++) - 1));
  }
  return all;
}

std::vector<Channels> all_shapes() {
  std::vector<Channels> all{{0, 3, 1}, {0, 3, 4}, {2, 3, 0}};
  for (const std::int64_t samples : {1, 2, 5}) {
    for (const std::int64_t channels : {1, 3, 19}) {
      for (const std::int64_t run : {1, 2, 15, 16, 17, 49}) all.push_back({samples, channels, run});
    }
  }
  return all;
}

// Calls f(channel, index of a number) for all of them.
template <class F>
void for_each_number(const Channels& shape, F f) {
  for (std::int64_t i = 0; i < shape.channels * shape.count(); ++i) {
    f(static_cast<std::size_t>(i / shape.run % shape.channels), static_cast<std::size_t>(i));
  }
}

struct Sums {
  Doubles plain, squares, products;
};

template <class T>
Sums sums_of(const Channels& shape, const T* x, const T* dy) {
  const auto channels = static_cast<std::size_t>(shape.channels);
  const Doubles mean = numbers(shape.channels, 3);
  Sums sums{Doubles(channels, 7), Doubles(channels, 7), Doubles(channels, 7)};
  sum_channels(shape, x, sums.plain.data());
  sum_channel_squares(shape, x, mean.data(), sums.squares.data());
  sum_channel_products(shape, x, mean.data(), dy, sums.products.data());
  return sums;
}

TEST(ChannelSums, are_those_of_each_channels_numbers) {
  for (const Channels& shape : all_shapes()) {
    const std::int64_t size = shape.channels * shape.count();
    SCOPED_TRACE(std::to_string(shape.channels) + " channels, run " + std::to_string(shape.run));
    const Doubles x = numbers(size, 1), dy = numbers(size, 2), mean = numbers(shape.channels, 3);
    std::vector<long double> plain(mean.size()), squares(mean.size()), products(mean.size());
    for_each_number(shape, [&](std::size_t channel, std::size_t i) {
      const long double distance = static_cast<long double>(x[i]) - mean[channel];
      plain[channel] += x[i];
      squares[channel] += distance * distance;
      products[channel] += dy[i] * distance;
    });
    const Sums found = sums_of(shape, x.data(), dy.data());
    for (std::size_t channel = 0; channel < mean.size(); ++channel) {
      EXPECT_NEAR(found.plain[channel], static_cast<double>(plain[channel]), 1e-13);
      EXPECT_NEAR(found.squares[channel], static_cast<double>(squares[channel]), 1e-13);
      EXPECT_NEAR(found.products[channel], static_cast<double>(products[channel]), 1e-13);
    }
  }
}

TEST(ChannelSums, have_the_same_bits_in_both_types_and_at_any_address) {
  for (const Channels& shape : all_shapes()) {
    const std::int64_t size = shape.channels * shape.count();
    const Doubles x = numbers(size, 1), dy = numbers(size, 2);
    const Sums expected = sums_of(shape, x.data(), dy.data());
    for (const std::int64_t offset : {0, 1, 3}) {
      std::vector<float> moved_x(static_cast<std::size_t>(size + offset)), moved_dy = moved_x;
      std::transform(x.begin(), x.end(), moved_x.begin() + offset,
                     [](double value) { return static_cast<float>(value); });
      std::transform(dy.begin(), dy.end(), moved_dy.begin() + offset,
                     [](double value) { return static_cast<float>(value); });
      const Sums found = sums_of(shape, moved_x.data() + offset, moved_dy.data() + offset);
      EXPECT_EQ(found.plain, expected.plain);
      EXPECT_EQ(found.squares, expected.squares);
      EXPECT_EQ(found.products, expected.products);
    }
  }
}

template <class T>
class ChannelMaps : public ::testing::Test {};
using Floating = ::testing::Types<float, double>;
TYPED_TEST_SUITE(ChannelMaps, Floating);

TYPED_TEST(ChannelMaps, are_those_of_each_number) {
  using T = TypeParam;
  for (const Channels& shape : all_shapes()) {
    const std::int64_t size = shape.channels * shape.count();
    const auto x = numbers<T>(size, 1), dy = numbers<T>(size, 2), start = numbers<T>(size, 3);
    const auto center = numbers<T>(shape.channels, 4), factor = numbers<T>(shape.channels, 5),
               offset = numbers<T>(shape.channels, 6), slope = numbers<T>(shape.channels, 7);
    const ChannelMap<T> map{center.data(), factor.data(), offset.data()};
    std::vector<T> y(x.size()), dx(x.size()), sum = start;
    map_channels(shape, x.data(), map, y.data());
    map_channel_gradients(shape, x.data(), map, dy.data(), slope.data(), dx.data(), false);
    map_channel_gradients(shape, x.data(), map, dy.data(), slope.data(), sum.data(), true);
    for_each_number(shape, [&](std::size_t channel, std::size_t i) {
      const T mapped = factor[channel] * (x[i] - center[channel]) + offset[channel];
      EXPECT_EQ(y[i], mapped);
      EXPECT_EQ(dx[i], slope[channel] * dy[i] + mapped);
      EXPECT_EQ(sum[i], start[i] + dx[i]);
    });
  }
}

}  // namespace normalization_test
}  // namespace lockstep::kernels
