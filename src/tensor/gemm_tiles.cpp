// Compiled once for each instruction set, as tiles_NAME: LOCKSTEP_TILES is that name, LOCKSTEP_VECTOR the bytes of
// a vector, and LOCKSTEP_ROWS the rows of a tile whose sums, two vectors a row, fit into registers. Nothing
// here may come from a header that others include: the linker keeps one copy of what is inline, for all.
#include "tensor/gemm_tiles.hpp"

#include <type_traits>
#include <utility>

#ifdef __SSE2__
#include <immintrin.h>
#endif

namespace lockstep::kernels {
namespace {

constexpr int rows = LOCKSTEP_ROWS;
template <class T>
constexpr int lanes = LOCKSTEP_VECTOR / static_cast<int>(sizeof(T));
template <class T>
constexpr int columns = 2 * lanes<T>;

template <class T, int n = lanes<T>>
struct Simd {
  static constexpr int bytes = n * static_cast<int>(sizeof(T));
  typedef T Vector __attribute__((vector_size(bytes)));
  // Wherever it is in memory.
  typedef T Loose __attribute__((vector_size(bytes), aligned(alignof(T)), may_alias));

  static Vector load(const T* from) { return *reinterpret_cast<const Loose*>(from); }
  static void store(Vector vector, T* to) { *reinterpret_cast<Loose*>(to) = vector; }
};

// a · b + c, rounded once where the instruction set can. Not left to compilers, which do so or not by the level of
// optimization.
#if defined(__AVX512F__)
__m512 fused(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
__m512d fused(__m512d a, __m512d b, __m512d c) { return _mm512_fmadd_pd(a, b, c); }
#elif defined(__FMA__)
__m256 fused(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
__m256d fused(__m256d a, __m256d b, __m256d c) { return _mm256_fmadd_pd(a, b, c); }
#else
template <class Vector>
Vector fused(Vector a, Vector b, Vector c) {
  return a * b + c;
}
#endif

// Of the rows a and b of a square, which are `step` apart: the one half of the squares of 2 · step that they are in, and the
// other, transposed.
template <int step, class Vector, int... i>
void exchange(Vector& a, Vector& b, std::integer_sequence<int, i...>) {
  constexpr int n = sizeof...(i);
  const Vector first = __builtin_shufflevector(a, b, ((i & step) == 0 ? i : i - step + n)...);
  b = __builtin_shufflevector(a, b, ((i & step) == 0 ? i + step : i + n)...);
  a = first;
}

// to[l · stride + lane] = from[lane · leading + l] of n lanes and n of l, in registers.
template <class T, int n>
void transpose_square(const T* from, std::int64_t leading, T* to, std::int64_t stride) {
  using Row = Simd<T, n>;
  typename Row::Vector rows_of_square[n];
#pragma GCC unroll 16
  for (int lane = 0; lane < n; ++lane) rows_of_square[lane] = Row::load(from + lane * leading);
  const auto exchange_all = [&]<int step>(std::integral_constant<int, step>) {
#pragma GCC unroll 16
    for (int lane = 0; lane < n; ++lane) {
      if ((lane & step) != 0) continue;
      exchange<step>(rows_of_square[lane], rows_of_square[lane + step],
                     std::make_integer_sequence<int, n>());
    }
  };
  if constexpr (n > 1) exchange_all(std::integral_constant<int, 1>());
  if constexpr (n > 2) exchange_all(std::integral_constant<int, 2>());
  if constexpr (n > 4) exchange_all(std::integral_constant<int, 4>());
  if constexpr (n > 8) exchange_all(std::integral_constant<int, 8>());
#pragma GCC unroll 16
  for (int l = 0; l < n; ++l) Row::store(rows_of_square[l], to + l * stride);
}

// Transposes whole squares of n lanes, and then of fewer, and returns the first lane that is left.
template <class T, int n, int width>
std::int64_t transpose_lanes(Operand<T> x, std::int64_t lane, std::int64_t valid,
                             std::int64_t depth, T* to) {
  if constexpr (n == 1) {
    return lane;
  } else {
    for (; lane + n <= valid; lane += n) {
      const T* const from = x.first + lane * x.leading;
      std::int64_t l = 0;
      for (; l + n <= depth; l += n) {
        transpose_square<T, n>(from + l, x.leading, to + l * width + lane, width);
      }
      for (; l < depth; ++l) {
        for (int i = 0; i < n; ++i) to[l * width + lane + i] = from[i * x.leading + l];
      }
    }
    return transpose_lanes<T, n / 2, width>(x, lane, valid, depth, to);
  }
}

// One sliver of `width` lanes, of which there are `valid`: element (lane, l) at to[l · width + lane].
template <class T, int width>
void pack_sliver(Operand<T> x, std::int64_t valid, std::int64_t depth, T* to) {
  const T* const from = x.first;
  const std::int64_t whole_vectors = (valid + lanes<T> - 1) / lanes<T> * lanes<T>;
  const std::int64_t read = whole_vectors < width ? whole_vectors : width;
  if (x.rows_are_lanes) {
    const std::int64_t transposed = transpose_lanes<T, lanes<T>, width>(x, 0, valid, depth, to);
    if (transposed == read) return;
    for (std::int64_t l = 0; l < depth; ++l) {
      T* const out = to + l * width;
      if (transposed < valid) out[transposed] = from[transposed * x.leading + l];
      for (std::int64_t lane = valid; lane < read; ++lane) out[lane] = T{0};
    }
    return;
  }
  for (std::int64_t l = 0; l < depth; ++l) {
    const T* const row = from + l * x.leading;
    T* const out = to + l * width;
    if (valid == width) {
      for (int lane = 0; lane < width; ++lane) out[lane] = row[lane];
    } else {
      for (std::int64_t lane = 0; lane < valid; ++lane) out[lane] = row[lane];
      for (std::int64_t lane = valid; lane < read; ++lane) out[lane] = T{0};
    }
  }
}

template <class T, int width>
void pack(Operand<T> x, std::int64_t count, std::int64_t depth, T* packed) {
  const std::int64_t step = x.rows_are_lanes ? x.leading : 1;
  for (std::int64_t lane = 0; lane < count; lane += width, packed += width * depth) {
    const std::int64_t left = count - lane;
    pack_sliver<T, width>({x.first + lane * step, x.leading, x.rows_are_lanes},
                          left < width ? left : width, depth, packed);
  }
}

// Rows of A as pack_rows() gives them.
template <class T>
struct PackedLanes {
  const T* first;

  T operator[](int lane) const { return first[lane]; }
  void next() { first += rows; }
  PackedLanes sliver(std::int64_t sliver, std::int64_t depth) const {
    return {first + sliver * rows * depth};
  }
};

// Rows of A where they are.
template <class T>
struct LanesInPlace {
  const T* first;
  std::int64_t lane_step, step;

  T operator[](int lane) const { return first[lane * lane_step]; }
  void next() { first += step; }
  LanesInPlace sliver(std::int64_t sliver, std::int64_t) const {
    return {first + sliver * rows * lane_step, lane_step, step};
  }
};

template <class T>
struct EvenRows {
  const T* first;
  std::int64_t leading;

  const T* operator[](std::int64_t l) const { return first + l * leading; }
};

template <class T>
struct ScatteredRows {
  const T* first;
  const std::int64_t* offsets;

  const T* operator[](std::int64_t l) const { return first + offsets[l]; }
};

// What is left of a tile at an edge of C, or where C is transposed. One copy is enough of this.
template <class T>
[[gnu::noinline]] void store(const T* part, std::int64_t leading, std::int64_t m, std::int64_t n,
                             Result<T> c) {
  for (std::int64_t j = 0; j < n; ++j) {
    for (std::int64_t i = 0; i < m; ++i) {
      T& to = c.first[i * c.row_step + j * c.column_step];
      to = c.add ? to + part[i * leading + j] : part[i * leading + j];
    }
  }
}

// `height` rows of C, of one vector or two.
template <class T, int height, int vectors, class Lanes, class Rows>
void tile(std::int64_t n, std::int64_t depth, Lanes a, Rows b, Result<T> c) {
  using Vector = typename Simd<T>::Vector;
  Vector sums[height][vectors] = {};
  for (std::int64_t l = 0; l < depth; ++l, a.next()) {
    Vector row[vectors];
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) row[v] = Simd<T>::load(b[l] + v * lanes<T>);
#pragma GCC unroll 16
    for (int i = 0; i < height; ++i) {
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) {
        sums[i][v] = fused(a[i] - Vector{}, row[v], sums[i][v]);
      }
    }
  }
  if (n == vectors * lanes<T> && c.column_step == 1) {
#pragma GCC unroll 16
    for (int i = 0; i < height; ++i) {
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) {
        T* const to = c.first + i * c.row_step + v * lanes<T>;
        Simd<T>::store(c.add ? Simd<T>::load(to) + sums[i][v] : sums[i][v], to);
      }
    }
    return;
  }
  T part[height][vectors * lanes<T>];
#pragma GCC unroll 16
  for (int i = 0; i < height; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) Simd<T>::store(sums[i][v], part[i] + v * lanes<T>);
  }
  store(&part[0][0], vectors * lanes<T>, height, n, c);
}

// The tile of so many rows.
template <class T, int vectors, int height = rows, class Lanes, class Rows>
void tile_of(std::int64_t m, std::int64_t n, std::int64_t depth, Lanes a, Rows b, Result<T> c) {
  if constexpr (height > 1) {
    if (m < height) return tile_of<T, vectors, height - 1>(m, n, depth, a, b, c);
  }
  tile<T, height, vectors>(n, depth, a, b, c);
}

template <class T, class Lanes, class Rows>
void multiply_by(std::int64_t m, std::int64_t n, std::int64_t depth, Lanes a, Rows b, Result<T> c) {
  for (std::int64_t sliver = 0; sliver * rows < m; ++sliver) {
    const std::int64_t left = m - sliver * rows;
    if (n > lanes<T>) {
      tile_of<T, 2>(left, n, depth, a.sliver(sliver, depth), b, c);
    } else {
      tile_of<T, 1>(left, n, depth, a.sliver(sliver, depth), b, c);
    }
    c.first += rows * c.row_step;
  }
}

template <class T>
void multiply(std::int64_t m, std::int64_t n, std::int64_t depth, const T* a, const T* b,
              std::int64_t leading_b, Result<T> c) {
  multiply_by(m, n, depth, PackedLanes<T>{a}, EvenRows<T>{b, leading_b}, c);
}

template <class T>
void multiply_in_place(std::int64_t m, std::int64_t n, std::int64_t depth, Operand<T> a, const T* b,
                       std::int64_t leading_b, Result<T> c) {
  const std::int64_t lane_step = a.rows_are_lanes ? a.leading : 1;
  const std::int64_t step = a.rows_are_lanes ? 1 : a.leading;
  multiply_by(m, n, depth, LanesInPlace<T>{a.first, lane_step, step}, EvenRows<T>{b, leading_b}, c);
}

template <class T>
void multiply_rows(std::int64_t m, std::int64_t n, std::int64_t depth, const T* a, const T* b,
                   const std::int64_t* rows_of_b, Result<T> c) {
  multiply_by(m, n, depth, PackedLanes<T>{a}, ScatteredRows<T>{b, rows_of_b}, c);
}

}  // namespace

template <class T>
Tiles<T> LOCKSTEP_TILES() {
  return {rows,        columns<T>,           pack<T, rows>,   pack<T, columns<T>>,
          multiply<T>, multiply_in_place<T>, multiply_rows<T>};
}
template Tiles<float> LOCKSTEP_TILES();
template Tiles<double> LOCKSTEP_TILES();

}  // namespace lockstep::kernels
