#pragma once

#include <cstdint>

#include "tensor/gemm_tiles.hpp"

namespace lockstep::kernels {

enum class Transpose : bool { no, yes };

/// Row-major C (m × n) = op(A) · op(B) [+ C], with op(A) of m × k and op(B) of k × n. The one place
/// where matrices are multiplied. Never fails.
///
/// The range of k is cut into ⌈k / 256⌉ blocks, as long as each other but for the last. An element of C is the sum
/// of those of the blocks, one after the other, and the sum of a block is one of products in ascending order. So
/// its bits depend neither on m and n nor on where it is.
template <class T>
void gemm(Transpose transpose_a, Transpose transpose_b, std::int64_t m, std::int64_t n,
          std::int64_t k, const T* a, const T* b, T* c, bool accumulate);

/// Of the blocks that k is cut into there, but for the last one.
std::int64_t block_length(std::int64_t k);

/// The number, rounded up to a multiple: lanes in whole slivers.
std::int64_t whole(std::int64_t number, std::int64_t of);

/// All lanes of a matrix (lanes, k) as tiles() take rows of A, one block of k after the other: that from l on at
/// packed[whole(lanes, rows) · l].
template <class T>
void pack_blocks(std::int64_t lanes, std::int64_t k, const T* matrix, T* packed);

/// The best that the processor has.
template <class T>
const Tiles<T>& tiles();

/// The same with the tiles of one instruction set, where gemm() takes the best ones.
template <class T>
void gemm_with(const Tiles<T>& tiles, Transpose transpose_a, Transpose transpose_b, std::int64_t m,
               std::int64_t n, std::int64_t k, const T* a, const T* b, T* c, bool accumulate);

}  // namespace lockstep::kernels
