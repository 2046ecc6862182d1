#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

#include "lockstep/tensor/random.hpp"

namespace lockstep {

/// f(element i, number i of the key) for all elements.
template <class T, class F>
void for_each_with_bits(std::span<T> elements, RandomKey key, F f) {
  std::array<std::uint64_t, 256> bits;
  for (std::size_t first = 0; first < elements.size(); first += bits.size()) {
    const std::size_t count = std::min(bits.size(), elements.size() - first);
    key.bits(first, std::span(bits).first(count));
    for (std::size_t i = 0; i < count; ++i) f(elements[first + i], bits[i]);
  }
}

}  // namespace lockstep
