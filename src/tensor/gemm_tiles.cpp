// Compiled once for each instruction set, as tiles_NAME: LOCKSTEP_TILES is that name, LOCKSTEP_VECTOR the bytes of
// a vector, and LOCKSTEP_ROWS the rows of a tile whose sums, two vectors a row, fit into registers. Nothing
// here may come from a header that others include: the linker keeps one copy of what is inline, for all.
#include "tensor/gemm_tiles.hpp"

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

template <class T>
struct Simd {
  typedef T Vector __attribute__((vector_size(LOCKSTEP_VECTOR)));
  // Wherever it is in memory.
  typedef T Loose __attribute__((vector_size(LOCKSTEP_VECTOR), aligned(alignof(T)), may_alias));

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

// Blocks of these extents are transposed in registers: to[l · stride + lane] = from[lane · leading + l].
template <class T>
constexpr std::int64_t square = 16 / static_cast<std::int64_t>(sizeof(T));

#ifdef __SSE2__
void transpose_square(const float* from, std::int64_t leading, float* to, std::int64_t stride) {
  __m128 a = _mm_loadu_ps(from), b = _mm_loadu_ps(from + leading);
  __m128 c = _mm_loadu_ps(from + 2 * leading), d = _mm_loadu_ps(from + 3 * leading);
  _MM_TRANSPOSE4_PS(a, b, c, d);
  _mm_storeu_ps(to, a);
  _mm_storeu_ps(to + stride, b);
  _mm_storeu_ps(to + 2 * stride, c);
  _mm_storeu_ps(to + 3 * stride, d);
}

void transpose_square(const double* from, std::int64_t leading, double* to, std::int64_t stride) {
  const __m128d a = _mm_loadu_pd(from), b = _mm_loadu_pd(from + leading);
  _mm_storeu_pd(to, _mm_unpacklo_pd(a, b));
  _mm_storeu_pd(to + stride, _mm_unpackhi_pd(a, b));
}
#else
template <class T>
void transpose_square(const T* from, std::int64_t leading, T* to, std::int64_t stride) {
  for (std::int64_t l = 0; l < square<T>; ++l) {
    for (std::int64_t lane = 0; lane < square<T>; ++lane) {
      to[l * stride + lane] = from[lane * leading + l];
    }
  }
}
#endif

// One sliver of `width` lanes, of which there are `valid`: element (lane, l) at to[l · width + lane].
template <class T, int width>
void pack_sliver(Operand<T> x, std::int64_t valid, std::int64_t depth, T* to) {
  const T* const from = x.first;
  if (!x.rows_are_lanes) {
    for (std::int64_t l = 0; l < depth; ++l) {
      const T* const row = from + l * x.leading;
      T* const out = to + l * width;
      if (valid == width) {
        for (int lane = 0; lane < width; ++lane) out[lane] = row[lane];
      } else {
        for (int lane = 0; lane < width; ++lane) out[lane] = lane < valid ? row[lane] : T{0};
      }
    }
    return;
  }
  std::int64_t lane = 0;
  for (; lane + square<T> <= valid; lane += square<T>) {
    std::int64_t l = 0;
    for (; l + square<T> <= depth; l += square<T>) {
      transpose_square(from + lane * x.leading + l, x.leading, to + l * width + lane, width);
    }
    for (; l < depth; ++l) {
      for (int i = 0; i < square<T>; ++i)
        to[l * width + lane + i] = from[(lane + i) * x.leading + l];
    }
  }
  for (; lane < width; ++lane) {
    for (std::int64_t l = 0; l < depth; ++l) {
      to[l * width + lane] = lane < valid ? from[lane * x.leading + l] : T{0};
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
template <class T, int height, int vectors, class Rows>
void tile(std::int64_t n, std::int64_t depth, const T* a, Rows b, Result<T> c) {
  using Vector = typename Simd<T>::Vector;
  Vector sums[height][vectors] = {};
  for (std::int64_t l = 0; l < depth; ++l, a += rows) {
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
template <class T, int vectors, int height = rows, class Rows>
void tile_of(std::int64_t m, std::int64_t n, std::int64_t depth, const T* a, Rows b, Result<T> c) {
  if constexpr (height > 1) {
    if (m < height) return tile_of<T, vectors, height - 1>(m, n, depth, a, b, c);
  }
  tile<T, height, vectors>(n, depth, a, b, c);
}

template <class T, class Rows>
void multiply_by(std::int64_t m, std::int64_t n, std::int64_t depth, const T* a, Rows b,
                 Result<T> c) {
  for (std::int64_t row = 0; row < m; row += rows) {
    if (n > lanes<T>) {
      tile_of<T, 2>(m - row, n, depth, a, b, c);
    } else {
      tile_of<T, 1>(m - row, n, depth, a, b, c);
    }
    a += rows * depth;
    c.first += rows * c.row_step;
  }
}

template <class T>
void multiply(std::int64_t m, std::int64_t n, std::int64_t depth, const T* a, const T* b,
              std::int64_t leading_b, Result<T> c) {
  multiply_by(m, n, depth, a, EvenRows<T>{b, leading_b}, c);
}

template <class T>
void multiply_rows(std::int64_t m, std::int64_t n, std::int64_t depth, const T* a, const T* b,
                   const std::int64_t* rows_of_b, Result<T> c) {
  multiply_by(m, n, depth, a, ScatteredRows<T>{b, rows_of_b}, c);
}

}  // namespace

template <class T>
Tiles<T> LOCKSTEP_TILES() {
  return {rows, columns<T>, pack<T, rows>, pack<T, columns<T>>, multiply<T>, multiply_rows<T>};
}
template Tiles<float> LOCKSTEP_TILES();
template Tiles<double> LOCKSTEP_TILES();

}  // namespace lockstep::kernels
