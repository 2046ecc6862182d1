#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "lockstep/core/dtype.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/core/flush_denormals.hpp"

namespace lockstep {

/// Calls `function.template operator()<T>()` with the C++ type of a floating-point dtype.
template <class Function>
decltype(auto) dispatch_floating(DType dtype, Function&& function) {
  switch (dtype) {
    case DType::f32:
      return function.template operator()<float>();
    case DType::f64:
      return function.template operator()<double>();
    default:
      break;
  }
  throw DTypeError("expected dtype f32 or f64, found " + std::string(to_string(dtype)));
}

/// The same, where the function computes what may well be denormal.
template <class Function>
decltype(auto) dispatch_kernel(DType dtype, Function&& function) {
  const FlushDenormals flush;
  return dispatch_floating(dtype, std::forward<Function>(function));
}

/// Calls it with the type of any dtype.
template <class Function>
decltype(auto) dispatch_all(DType dtype, Function&& function) {
  switch (dtype) {
    case DType::i64:
      return function.template operator()<std::int64_t>();
    case DType::u8:
      return function.template operator()<std::uint8_t>();
    default:
      return dispatch_floating(dtype, std::forward<Function>(function));
  }
}

}  // namespace lockstep
