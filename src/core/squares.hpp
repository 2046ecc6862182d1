#pragma once

#include <cstddef>

namespace lockstep {

/// A sum of squares is that of blocks, counted from the first number and added up in this order. So
/// it may be measured block by block, wherever the numbers pass by, with the same bits.
constexpr std::size_t squares_block_bytes = 1024;

/// Numbers of a block.
template <class T>
constexpr std::size_t squares_block = squares_block_bytes / sizeof(T);

/// Blocks of an array of so many bytes.
constexpr std::size_t squares_blocks(std::size_t bytes) noexcept {
  return (bytes + squares_block_bytes - 1) / squares_block_bytes;
}

/// Σ x² in f64 of one block, of which the last of an array may have fewer numbers. T is float or
/// double.
template <class T>
double block_squares(std::size_t n, const T* x);

}  // namespace lockstep
