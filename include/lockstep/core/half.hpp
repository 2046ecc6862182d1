#pragma once

#include <cstdint>

#pragma GCC visibility push(default)

namespace lockstep {

/// An IEEE 754 binary16 number: storage alone, computed with as float. Conversion from float rounds
/// to nearest even; what is too large becomes infinite, and a NaN stays one.
struct float16 {
  std::uint16_t bits = 0;

  float16() = default;
  explicit float16(float value) noexcept;
  explicit operator float() const noexcept;
};

/// The upper half of an IEEE 754 binary32 number; the rest as for float16.
struct bfloat16 {
  std::uint16_t bits = 0;

  bfloat16() = default;
  explicit bfloat16(float value) noexcept;
  explicit operator float() const noexcept;
};

}  // namespace lockstep

#pragma GCC visibility pop
