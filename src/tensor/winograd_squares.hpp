#pragma once

#include <cstdint>

#include "tensor/gemm.hpp"

// What the algorithm of Lavin and Gray (tensor/winograd.hpp) has for 2 × 2 windows, which see a square of 4 × 4 pixels.
namespace lockstep::kernels::winograd {

constexpr std::int64_t taps = 9, products = 16;

inline std::int64_t halved(std::int64_t number) { return (number + 1) / 2; }

/// Numbers of one product are a line of the cache further than those of the one before, so that they are not in the same
/// places of it.
template <class T>
std::int64_t apart(std::int64_t size) {
  constexpr std::int64_t line = 64 / static_cast<std::int64_t>(sizeof(T));
  return whole(size, line) + line;
}

/// Bᵀ · d of a column d, with B of the paper.
template <class V>
void transform_pixels(V& a, V& b, V& c, V& d) {
  a -= c;
  d = b - d;
  const V sum = b + c;
  c -= b;
  b = sum;
}

}  // namespace lockstep::kernels::winograd
