#pragma once

#include <cstdint>

namespace lockstep::kernels {

/// An operand of a product as the sums run over it: element (lane, l), where a lane is a row of A or a
/// column of B, and l < depth.
template <class T>
struct Operand {
  const T* first;
  std::int64_t leading;  // elements from one row in memory to the next
  bool rows_are_lanes;   // whether a row in memory is a lane, or has one element of each
};

/// Where element (i, j) of a product goes: to first[i · row_step + j · column_step], or it is added there.
template <class T>
struct Result {
  T* first;
  std::int64_t row_step, column_step;
  bool add;
};

/// What one instruction set makes of blocks of matrices. Block A is packed in slivers of `rows`, and
/// block B of `columns` lanes. Rows of B are read up to the next whole vector, and packed with zeros up to there.
///
/// An element of C is a sum over l in ascending order, each product added by a fused multiply-add where
/// the instruction set has one. So its bits depend neither on the sizes of tiles nor on the place of the
/// element, and are the same with all vectors of those.
template <class T>
struct Tiles {
  std::int64_t rows, columns;

  void (*pack_rows)(Operand<T> a, std::int64_t lanes, std::int64_t depth, T* packed);
  void (*pack_columns)(Operand<T> b, std::int64_t lanes, std::int64_t depth, T* packed);
  /// C (m × n, n ≤ columns) = A · B [+ C], of all slivers of A and one of B, the rows of which are `leading_b`
  /// apart.
  void (*multiply)(std::int64_t m, std::int64_t n, std::int64_t depth, const T* a, const T* b,
                   std::int64_t leading_b, Result<T> c);
  /// The same of an A that is not packed.
  void (*multiply_in_place)(std::int64_t m, std::int64_t n, std::int64_t depth, Operand<T> a,
                            const T* b, std::int64_t leading_b, Result<T> c);
  /// The same, with A packed, of a B whose row l begins at b[rows_of_b[l]].
  void (*multiply_rows)(std::int64_t m, std::int64_t n, std::int64_t depth, const T* a, const T* b,
                        const std::int64_t* rows_of_b, Result<T> c);
};

/// Of x86-64 without extensions, of AVX2 with FMA, and of AVX-512, which a processor may not have.
template <class T>
Tiles<T> tiles_baseline();
template <class T>
Tiles<T> tiles_avx2();
template <class T>
Tiles<T> tiles_avx512();

}  // namespace lockstep::kernels
