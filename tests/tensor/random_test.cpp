#include "lockstep/tensor/random.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <set>
#include <span>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace random_test {

using testing::throws;
using Words = std::array<std::uint32_t, 4>;

// The known answers that come with Random123.
TEST(Philox, gives_the_known_answers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr std::uint32_t ones = 0xffffffff;
  EXPECT_EQ(philox4x32({ones, ones, ones, ones}, {ones, ones}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RandomKey, gives_two_numbers_a_block_low_word_first) {
  EXPECT_EQ(RandomKey(0).bits(0), 0xe169c58d6627e8d5U);
  EXPECT_EQ(RandomKey(0).bits(1), 0x9b00dbd8bc57ac4cU);
  const Words far = philox4x32({5, 1, 0, 0}, {7, 9});
  EXPECT_EQ(RandomKey(std::uint64_t{9} << 32 | 7).bits(2 * (std::uint64_t{1} << 32 | 5)),
            std::uint64_t{far[1]} << 32 | far[0]);
}

// Saved runs depend on these numbers: a change of them is a change of format.
TEST(RandomKey, gives_many_numbers_as_one_after_the_other) {
  const RandomKey key(0x123456789abcdef0);
  for (const std::uint64_t first : {0ULL, 1ULL, 6ULL, 0x1fffffff9ULL}) {
    for (const std::size_t count : {0U, 1U, 2U, 31U, 32U, 33U, 100U}) {
      std::vector<std::uint64_t> expected(count), found(count + 1, 7);
      for (std::size_t i = 0; i < count; ++i) expected[i] = key.bits(first + i);
      key.bits(first, std::span(found).first(count));
      EXPECT_EQ(found.back(), 7U);
      found.pop_back();
      EXPECT_EQ(found, expected) << first << ' ' << count;
    }
  }
}

TEST(RandomKey, folds_the_same_on_every_machine) {
  EXPECT_EQ(RandomKey(0).fold("weight").bits(0), 7423116809884855235U);
  EXPECT_EQ(RandomKey(0).fold(7).bits(0), 5183294288849441214U);
}

TEST(RandomKey, of_different_uses_are_different) {
  const RandomKey root(1);
  EXPECT_EQ(root, RandomKey(1));
  EXPECT_EQ(root.fold("a").fold(3), RandomKey(1).fold("a").fold(3));
  std::set<std::uint64_t> first;
  std::size_t count = 0;
  const auto add = [&](RandomKey key) {
    for (std::uint64_t i = 0; i < 4; ++i) first.insert(key.bits(i));
    count += 4;
  };
  for (std::uint64_t seed = 0; seed < 50; ++seed) add(RandomKey(seed));
  for (std::uint64_t number = 0; number < 200; ++number) add(root.fold(number));
  for (const char* name : {"", "a", "b", "ab", "ba", "0", "1", "weight", "bias"}) {
    add(root.fold(name));
    add(root.fold(name).fold("a"));
    add(root.fold(name).fold(1));
  }
  add(root.fold(1).fold(2));
  add(root.fold(2).fold(1));
  // root.fold("").fold("a") is not root.fold("a"), nor is a key the same as one below it.
  EXPECT_EQ(first.size(), count);
}

// |mean of n numbers - expected| is below 5 standard errors for a good generator and this seed.
double standard_error(double deviation, std::size_t n) {
  return 5 * deviation / std::sqrt(static_cast<double>(n));
}

double correlation(const std::vector<double>& x, const std::vector<double>& y) {
  const auto n = static_cast<double>(x.size());
  double sx = 0, sy = 0, sxx = 0, syy = 0, sxy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    sx += x[i], sy += y[i], sxx += x[i] * x[i], syy += y[i] * y[i], sxy += x[i] * y[i];
  }
  return (sxy - sx * sy / n) / std::sqrt((sxx - sx * sx / n) * (syy - sy * sy / n));
}

std::vector<double> uniforms(RandomKey key, std::size_t n) {
  std::vector<double> numbers(n);
  for (std::size_t i = 0; i < n; ++i) numbers[i] = key.uniform(i);
  return numbers;
}

TEST(RandomKey, numbers_of_related_keys_are_not_correlated) {
  constexpr std::size_t n = 100'000;
  const RandomKey root(3);
  const std::vector<double> x = uniforms(root.fold(0), n);
  for (const RandomKey& other : {root, root.fold(1), root.fold("0"), RandomKey(4).fold(0)}) {
    EXPECT_LT(std::abs(correlation(x, uniforms(other, n))), standard_error(1, n));
  }
  const std::vector<double> now(x.begin(), x.end() - 1), next(x.begin() + 1, x.end());
  EXPECT_LT(std::abs(correlation(now, next)), standard_error(1, n));
}

TEST(RandomKey, uniform_is_a_multiple_of_two_to_the_minus_53_below_1) {
  const std::vector<double> numbers = uniforms(RandomKey(5), 10'000);
  for (const double number : numbers) {
    EXPECT_GE(number, 0);
    EXPECT_LT(number, 1);
    const double scaled = std::ldexp(number, 53);
    EXPECT_EQ(scaled, std::floor(scaled));
  }
  EXPECT_EQ(RandomKey(0).uniform(0),
            std::ldexp(static_cast<double>(0xe169c58d6627e8d5U >> 11), -53));
}

TEST(RandomKey, below_gives_each_number_equally_often) {
  for (const std::uint64_t bound : {1U, 2U, 3U, 7U, 10U}) {
    const std::size_t draws = 70'000;
    std::vector<double> found(bound);
    for (std::size_t i = 0; i < draws; ++i) {
      const std::uint64_t number = RandomKey(8).fold(bound).below(bound, i);
      ASSERT_LT(number, bound);
      ++found[number];
    }
    const double p = 1 / static_cast<double>(bound);
    for (const double count : found) {
      EXPECT_NEAR(count / draws, p, standard_error(std::sqrt(p * (1 - p)), draws) + 1e-12);
    }
  }
}

TEST(RandomKey, below_a_large_bound_reaches_its_upper_half) {
  constexpr std::uint64_t bound = 0xC000000000000000U;
  double high = 0;
  for (std::uint64_t i = 0; i < 10'000; ++i) high += RandomKey(2).below(bound, i) >= bound / 2;
  EXPECT_NEAR(high / 10'000, 0.5, standard_error(0.5, 10'000));
}

struct Moments {
  double mean = 0, variance = 0, third = 0, fourth = 0;
};

Moments moments(const Tensor& tensor) {
  const Tensor numbers = tensor.to(DType::f64);
  const auto n = static_cast<double>(numbers.size());
  Moments found;
  for (const double x : numbers.span<double>()) found.mean += x / n;
  for (const double x : numbers.span<double>()) {
    const double d = x - found.mean;
    found.variance += d * d / n, found.third += d * d * d / n, found.fourth += d * d * d * d / n;
  }
  return found;
}

constexpr std::int64_t many = 200'000;

TEST(FillUniform, has_the_moments_and_bounds_of_the_distribution) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    Tensor tensor = Tensor::empty({many}, dtype);
    fill_uniform(tensor, RandomKey(11), -1, 3);
    const Moments found = moments(tensor);
    const double deviation = 4 / std::sqrt(12.0);
    EXPECT_NEAR(found.mean, 1, standard_error(deviation, many));
    EXPECT_NEAR(found.variance, deviation * deviation, 0.02);
    const Tensor numbers = tensor.to(DType::f64);
    const auto [low, high] = std::ranges::minmax(numbers.span<double>());
    EXPECT_GE(low, -1);
    EXPECT_LT(low, -0.999);
    EXPECT_LE(high, 3);
    EXPECT_GT(high, 2.999);
  }
}

TEST(FillNormal, has_the_moments_of_the_distribution) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    Tensor tensor = Tensor::empty({many}, dtype);
    fill_normal(tensor, RandomKey(12), 2, 3);
    const Moments found = moments(tensor);
    EXPECT_NEAR(found.mean, 2, standard_error(3, many));
    EXPECT_NEAR(found.variance / 9, 1, standard_error(std::sqrt(2.0), many));
    EXPECT_NEAR(found.third / 27, 0, standard_error(std::sqrt(15.0), many));
    EXPECT_NEAR(found.fourth / 81, 3, standard_error(std::sqrt(96.0), many));
  }
}

TEST(FillNormal, makes_each_element_of_two_numbers_of_its_own) {
  const RandomKey key(14);
  Tensor tensor = Tensor::empty({100}, DType::f64);
  fill_normal(tensor, key, 0, 1);
  for (std::uint64_t i = 0; i < 100; ++i) {
    const double radius = std::sqrt(-2 * std::log1p(-key.uniform(2 * i)));
    const double angle = 2 * std::numbers::pi * key.uniform(2 * i + 1);
    EXPECT_NEAR(tensor.data<double>()[i], radius * std::cos(angle), 1e-13);
  }
}

TEST(FillNormal, elements_are_not_correlated_with_their_neighbours) {
  Tensor tensor = Tensor::empty({many}, DType::f64);
  fill_normal(tensor, RandomKey(13), 0, 1);
  const std::span<const double> x = tensor.span<double>();
  EXPECT_LT(std::abs(correlation({x.begin(), x.end() - 1}, {x.begin() + 1, x.end()})),
            standard_error(1, many));
}

TEST(Fill, gives_a_longer_tensor_the_same_beginning) {
  for (const auto fill : {fill_uniform, fill_normal}) {
    Tensor small = Tensor::empty({5}), large = Tensor::empty({11, 3});
    fill(small, RandomKey(1), 0, 1);
    fill(large, RandomKey(1), 0, 1);
    EXPECT_TRUE(bit_equal(small, large.window(0, {5})));
  }
}

TEST(Fill, takes_floating_tensors_only) {
  Tensor integers = Tensor::zeros({2}, DType::i64);
  EXPECT_TRUE(throws<DTypeError>([&] { fill_uniform(integers, RandomKey(1), 0, 1); }, "i64"));
  EXPECT_TRUE(throws<DTypeError>([&] { fill_normal(integers, RandomKey(1), 0, 1); }, "i64"));
  Tensor undefined;
  EXPECT_THROW(fill_uniform(undefined, RandomKey(1), 0, 1), StateError);
  Tensor none = Tensor::empty({0});
  EXPECT_NO_THROW(fill_normal(none, RandomKey(1), 0, 1));
}

}  // namespace random_test
}  // namespace lockstep
