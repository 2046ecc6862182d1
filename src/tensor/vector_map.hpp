#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "tensor/vector_math.hpp"

namespace lockstep::kernels {

/// The first `count` numbers of a vector, as numbers of type C; 0 beyond.
template <class C, class T, class Count = std::integral_constant<std::int64_t, width<C>>>
Vector<C> load(const T* from, Count count = {}) {
  C numbers[width<C>] = {};
  for (std::int64_t lane = 0; lane < count; ++lane) numbers[lane] = static_cast<C>(from[lane]);
  Vector<C> vector;
  std::memcpy(&vector, numbers, sizeof(vector));
  return vector;
}

template <class C, class T, class Count = std::integral_constant<std::int64_t, width<C>>>
void store(Vector<C> vector, T* to, Count count = {}) {
  C numbers[width<C>];
  std::memcpy(numbers, &vector, sizeof(vector));
  for (std::int64_t lane = 0; lane < count; ++lane) to[lane] = static_cast<T>(numbers[lane]);
}

/// f(i, count) of each vector of `count` numbers of type C, of n, that begins at i. The last ones, which do not fill a
/// vector, take the same path as all others.
template <class C, class F>
void for_each_vector(std::int64_t n, F f) {
  constexpr std::integral_constant<std::int64_t, width<C>> whole;
  std::int64_t i = 0;
  for (; i + whole <= n; i += whole) f(i, whole);
  if (i < n) f(i, n - i);
}

/// y[i] (+)= f(x[i]...), of vectors of numbers of type C. y may be x.
template <class C, class T, class F, class... X>
void map(std::int64_t n, T* y, bool accumulate, F f, const X*... x) {
  for_each_vector<C>(n, [&](std::int64_t i, auto count) {
    Vector<C> result = f(load<C>(x + i, count)...);
    if (accumulate) result += load<C>(y + i, count);
    store<C>(result, y + i, count);
  });
}

}  // namespace lockstep::kernels
