#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#pragma GCC visibility push(default)

namespace lockstep {

/// Element types of a Tensor. The numbers are written to checkpoints and never change.
enum class DType : std::uint8_t { f32 = 0, f64 = 1, i64 = 2, u8 = 3 };

/// Bytes of one element.
std::size_t item_size(DType dtype) noexcept;

/// "f32", "f64", "i64" or "u8".
std::string_view to_string(DType dtype) noexcept;

/// True for f32 and f64, the types that parameters and gradients can have.
constexpr bool is_floating(DType dtype) noexcept {
  return dtype == DType::f32 || dtype == DType::f64;
}

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct DTypeOf<std::int64_t> {
  static constexpr DType value = DType::i64;
};
template <>
struct DTypeOf<std::uint8_t> {
  static constexpr DType value = DType::u8;
};

/// The DType of a C++ type: dtype_of<float> == DType::f32.
template <class T>
inline constexpr DType dtype_of = DTypeOf<T>::value;

}  // namespace lockstep

#pragma GCC visibility pop
