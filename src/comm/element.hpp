#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <type_traits>

#include "comm/combine.hpp"
#include "comm/job.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/core/half.hpp"

namespace lockstep::comm {

template <class T>
struct ElementOf;
template <>
struct ElementOf<float> {
  static constexpr Element value = Element::f32;
};
template <>
struct ElementOf<double> {
  static constexpr Element value = Element::f64;
};
template <>
struct ElementOf<std::int64_t> {
  static constexpr Element value = Element::i64;
};
template <>
struct ElementOf<std::uint8_t> {
  static constexpr Element value = Element::u8;
};
template <>
struct ElementOf<float16> {
  static constexpr Element value = Element::f16;
};
template <>
struct ElementOf<bfloat16> {
  static constexpr Element value = Element::bf16;
};

/// The Element of a C++ type.
template <class T>
inline constexpr Element element_of = ElementOf<T>::value;

/// OptionError where elements of type T cannot be combined by `op`.
template <class T>
void check_operation(ReduceOp op) {
  if (op > ReduceOp::mean) {
    throw OptionError(fmt::format("unknown reduce operation {}", static_cast<int>(op)));
  }
  if (std::is_integral_v<T> && op == ReduceOp::mean) {
    throw OptionError(
        fmt::format("there is no mean of {}, which are whole numbers", to_string(element_of<T>)));
  }
}

}  // namespace lockstep::comm
