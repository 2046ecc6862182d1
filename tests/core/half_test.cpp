#include "lockstep/core/half.hpp"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "lockstep/tensor/random.hpp"
#include "lockstep/testing/mpi_test.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace half_test {

// The value of a pattern by the definition of IEEE 754, for numbers of that many bits of mantissa.
double value_of(std::uint16_t bits, int mantissa_bits, int bias) {
  const int exponent_bits = 15 - mantissa_bits;
  const int exponent = bits >> mantissa_bits & ((1 << exponent_bits) - 1);
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) {
    return mantissa == 0 ? sign * HUGE_VAL : std::numeric_limits<double>::quiet_NaN();
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits);
}

template <class Half>
struct Format;
template <>
struct Format<float16> {
  static constexpr int mantissa_bits = 10, bias = 15;
};
template <>
struct Format<bfloat16> {
  static constexpr int mantissa_bits = 7, bias = 127;
};

template <class Half>
Half from_bits(std::uint32_t bits) {
  Half half;
  half.bits = static_cast<std::uint16_t>(bits);
  return half;
}

template <class Half>
class HalfTest : public ::testing::Test {
 protected:
  static double value(std::uint32_t bits) {
    return value_of(static_cast<std::uint16_t>(bits), Format<Half>::mantissa_bits,
                    Format<Half>::bias);
  }

  // That the conversion of x is the nearest number, and the even one of two that are as near.
  static void expect_nearest(float x) {
    const std::uint32_t bits = Half(x).bits;
    const double exact = static_cast<double>(x), found = value(bits);
    const std::uint32_t magnitude = bits & 0x7fff, infinity = infinity_bits();
    ASSERT_EQ(std::signbit(found), std::signbit(exact)) << x;
    // Infinity stands for what the next power of two would be.
    const auto absolute = [&](std::uint32_t pattern) {
      return pattern == infinity ? std::ldexp(1, Format<Half>::bias + 1) : value(pattern);
    };
    const double distance = std::abs(absolute(magnitude) - std::abs(exact));
    if (magnitude > 0) {
      const double below = std::abs(absolute(magnitude - 1) - std::abs(exact));
      ASSERT_TRUE(distance < below || (distance == below && magnitude % 2 == 0)) << x;
    }
    if (magnitude < infinity) {
      const double above = std::abs(absolute(magnitude + 1) - std::abs(exact));
      ASSERT_TRUE(distance < above || (distance == above && magnitude % 2 == 0)) << x;
    }
  }

  static std::uint32_t infinity_bits() {
    return 0x7fffU >> Format<Half>::mantissa_bits << Format<Half>::mantissa_bits;
  }
};

using Halves = ::testing::Types<float16, bfloat16>;
TYPED_TEST_SUITE(HalfTest, Halves);

TYPED_TEST(HalfTest, every_number_is_what_its_bits_say_and_survives_the_way_to_float_and_back) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = from_bits<TypeParam>(bits);
    const double expected = this->value(bits);
    const float found = static_cast<float>(half);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(found)) << bits;
      EXPECT_TRUE(std::isnan(static_cast<float>(TypeParam(found)))) << bits;
      continue;
    }
    ASSERT_EQ(static_cast<double>(found), expected) << bits;
    ASSERT_EQ(std::signbit(found), (bits & 0x8000) != 0) << bits;
    ASSERT_EQ(TypeParam(found).bits, bits);
  }
}

TYPED_TEST(HalfTest, rounds_to_the_nearest_and_of_two_to_the_even_one) {
  const RandomKey key(1);
  for (std::uint64_t i = 0; i < 200000; ++i) {
    const auto x = std::bit_cast<float>(static_cast<std::uint32_t>(key.bits(i)));
    if (std::isfinite(x)) this->expect_nearest(x);
  }
  // Between any two neighbours: the middle, and what is next to it on both sides.
  for (std::uint32_t bits = 0; bits + 1 < this->infinity_bits(); ++bits) {
    const float low = static_cast<float>(from_bits<TypeParam>(bits));
    const float high = static_cast<float>(from_bits<TypeParam>(bits + 1));
    const float middle = low + (high - low) / 2;
    for (const float x : {middle, std::nextafter(middle, low), std::nextafter(middle, high)}) {
      this->expect_nearest(x);
      this->expect_nearest(-x);
    }
  }
}

TYPED_TEST(HalfTest, what_is_too_large_becomes_infinite_and_what_is_too_small_zero) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(static_cast<float>(TypeParam(infinity)), infinity);
  EXPECT_EQ(static_cast<float>(TypeParam(-infinity)), -infinity);
  EXPECT_EQ(static_cast<float>(TypeParam(std::numeric_limits<float>::max())), infinity);
  EXPECT_EQ(TypeParam(-0.0F).bits, 0x8000);
  EXPECT_EQ(TypeParam(0.0F).bits, 0);
  EXPECT_TRUE(std::isnan(static_cast<float>(TypeParam(std::numeric_limits<float>::quiet_NaN()))));
}

TEST(Float16, becomes_zero_below_half_of_the_least_number) {
  EXPECT_EQ(float16(0x1p-25F).bits, 0);  // a tie
  EXPECT_EQ(float16(std::nextafter(0x1p-25F, 1.0F)).bits, 1);
  EXPECT_EQ(float16(0x1p-26F).bits, 0);
}

}  // namespace half_test
}  // namespace lockstep
