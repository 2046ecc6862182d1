#include "lockstep/core/half.hpp"

#include <bit>

namespace lockstep {
namespace {

constexpr std::uint32_t infinity = 0x7f800000;

// value >> shift, rounded to nearest even; 0 < shift < 32.
std::uint32_t round_shift(std::uint32_t value, std::uint32_t shift) noexcept {
  const std::uint32_t half = std::uint32_t{1} << (shift - 1);
  const std::uint32_t rest = value & (2 * half - 1), quotient = value >> shift;
  return quotient + (rest > half || (rest == half && (quotient & 1) != 0) ? 1 : 0);
}

}  // namespace

float16::float16(float value) noexcept {
  const auto number = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = number >> 16 & 0x8000, magnitude = number & 0x7fffffff;
  const std::uint32_t exponent = magnitude >> 23;
  std::uint32_t rounded = 0;
  if (magnitude > infinity) {
    rounded = 0x7e00 | (magnitude >> 13 & 0x3ff);
  } else if (exponent >= 113) {  // at least 2^-14, the least normal number
    rounded = round_shift(magnitude - (112U << 23), 13);
    if (rounded > 0x7c00) rounded = 0x7c00;
  } else if (exponent >= 102) {  // at least half of 2^-24, the least number of all
    rounded = round_shift((magnitude & 0x7fffff) | 0x800000, 126 - exponent);
  }
  bits = static_cast<std::uint16_t>(sign | rounded);
}

float16::operator float() const noexcept {
  const std::uint32_t sign = (bits & 0x8000U) << 16, magnitude = bits & 0x7fffU;
  if (magnitude >= 0x7c00) {  // the rest of a NaN stays; it becomes quiet, as in hardware
    const std::uint32_t rest = (magnitude & 0x3ffU) << 13;
    return std::bit_cast<float>(sign | infinity | rest | (rest != 0 ? 0x400000U : 0));
  }
  if (magnitude >= 0x400) return std::bit_cast<float>(sign | ((magnitude << 13) + (112U << 23)));
  const float tiny = static_cast<float>(magnitude) * 0x1p-24F;
  return sign != 0 ? -tiny : tiny;
}

bfloat16::bfloat16(float value) noexcept {
  const auto number = std::bit_cast<std::uint32_t>(value);
  const bool nan = (number & 0x7fffffff) > infinity;
  bits = static_cast<std::uint16_t>(nan ? number >> 16 | 0x40 : round_shift(number, 16));
}

bfloat16::operator float() const noexcept {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

}  // namespace lockstep
