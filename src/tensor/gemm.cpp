#include "tensor/gemm.hpp"

#include <algorithm>
#include <cstddef>
#include <new>

#include "core/parallel_for.hpp"
#include "lockstep/tensor/memory_pool.hpp"

namespace lockstep::kernels {
namespace {

constexpr std::int64_t longest_block = 256;  // of k
// Of A that are packed at a time: with the longest block, what the second cache holds, or little more.
constexpr std::int64_t most_rows = 768;

// Of all sets of tiles.
template <class T>
constexpr std::int64_t widest_sliver = 128 / static_cast<std::int64_t>(sizeof(T));

constexpr std::int64_t divided(std::int64_t number, std::int64_t by) {
  return (number + by - 1) / by;
}

template <class T>
Tiles<T> best_tiles() {
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx512f")) return tiles_avx512<T>();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return tiles_avx2<T>();
#endif
  return tiles_baseline<T>();
}

// A packed block of A: on the stack where it is small, or where there is no other memory.
template <class T>
class Packed {
 public:
  explicit Packed(std::int64_t wanted) {
    if (wanted <= size_) return;
    const std::size_t bytes = static_cast<std::size_t>(wanted) * sizeof(T);
    try {
      memory_ = static_cast<T*>(memory_pool::allocate(bytes));
      size_ = wanted;
    } catch (const std::bad_alloc&) {
    }
  }
  ~Packed() {
    if (memory_ != on_stack_) {
      memory_pool::release(memory_, static_cast<std::size_t>(size_) * sizeof(T));
    }
  }
  Packed(const Packed&) = delete;
  Packed& operator=(const Packed&) = delete;

  T* data() { return memory_; }
  std::int64_t size() const { return size_; }

 private:
  static constexpr std::int64_t few = (64 << 10) / static_cast<std::int64_t>(sizeof(T));

  alignas(64) T on_stack_[few];
  T* memory_ = on_stack_;
  std::int64_t size_ = few;
};

// What begins with that element.
template <class T>
Operand<T> part(const Operand<T>& x, std::int64_t lane, std::int64_t l) {
  const std::int64_t row = x.rows_are_lanes ? lane : l, column = x.rows_are_lanes ? l : lane;
  return {x.first + row * x.leading + column, x.leading, x.rows_are_lanes};
}

// What is used by few slivers of the other is not worth packing.
constexpr std::int64_t few_slivers = 2;

template <class T>
void multiply(const Tiles<T>& tiles, std::int64_t m, std::int64_t n, std::int64_t k,
              const Operand<T>& a, const Operand<T>& b, Result<T> c) {
  const bool packs_a = n > few_slivers * tiles.columns;
  const bool packs_b = b.rows_are_lanes || m > few_slivers * tiles.rows;
  const std::int64_t longest = block_length(k);
  const std::int64_t wanted = std::min(whole(m, tiles.rows), most_rows);
  Packed<T> packed(packs_a ? wanted * longest : 0);
  T* const packed_a = packed.data();
  const std::int64_t most = packs_a ? packed.size() / longest / tiles.rows * tiles.rows : m;

  for (std::int64_t row = 0; row < m; row += most) {
    const std::int64_t height = std::min(most, m - row);
    for (std::int64_t l = 0; l < k; l += longest) {
      const std::int64_t depth = std::min(longest, k - l);
      const Operand<T> rows = part(a, row, l);
      if (packs_a) tiles.pack_rows(rows, height, depth, packed_a);
      const auto multiply_sliver = [&](std::int64_t width, const T* of_b, std::int64_t leading,
                                       const Result<T>& to) {
        if (packs_a) {
          tiles.multiply(height, width, depth, packed_a, of_b, leading, to);
        } else {
          tiles.multiply_in_place(height, width, depth, rows, of_b, leading, to);
        }
      };
      const auto multiply_slivers = [&](std::int64_t first, std::int64_t last) {
        alignas(64) T packed_b[widest_sliver<T> * longest_block];
        for (std::int64_t column = first * tiles.columns;
             column < std::min(last * tiles.columns, n); column += tiles.columns) {
          const std::int64_t width = std::min(tiles.columns, n - column);
          const Operand<T> sliver = part(b, column, l);
          const Result<T> to{c.first + row * c.row_step + column * c.column_step, c.row_step,
                             c.column_step, c.add || l > 0};
          const bool whole_vectors = 2 * width % tiles.columns == 0;
          if (!packs_b && whole_vectors) {
            multiply_sliver(width, sliver.first, sliver.leading, to);
          } else {
            tiles.pack_columns(sliver, width, depth, packed_b);
            multiply_sliver(width, packed_b, tiles.columns, to);
          }
        }
      };
      const std::int64_t slivers = divided(n, tiles.columns);
      if (height * depth * n < least_for_threads) {
        multiply_slivers(0, slivers);
      } else {
        parallel_for(slivers, multiply_slivers);
      }
    }
  }
}

}  // namespace

std::int64_t block_length(std::int64_t k) { return divided(k, divided(k, longest_block)); }

std::int64_t whole(std::int64_t number, std::int64_t of) { return divided(number, of) * of; }

template <class T>
void pack_blocks(std::int64_t lanes, std::int64_t k, const T* matrix, T* packed) {
  const std::int64_t longest = block_length(k), rows = whole(lanes, tiles<T>().rows);
  for (std::int64_t l = 0; l < k; l += longest) {
    tiles<T>().pack_rows({matrix + l, k, true}, lanes, std::min(longest, k - l), packed + rows * l);
  }
}

template <class T>
const Tiles<T>& tiles() {
  static const Tiles<T> best = best_tiles<T>();
  return best;
}

template <class T>
void gemm_with(const Tiles<T>& tiles, Transpose transpose_a, Transpose transpose_b, std::int64_t m,
               std::int64_t n, std::int64_t k, const T* a, const T* b, T* c, bool accumulate) {
  if (m == 0 || n == 0) return;
  if (k == 0) {
    if (!accumulate) std::fill_n(c, m * n, T{0});
    return;
  }
  const bool ta = transpose_a == Transpose::yes, tb = transpose_b == Transpose::yes;
  const Operand<T> rows{a, ta ? m : k, !ta}, columns{b, tb ? k : n, tb};
  // Few columns leave most of a vector empty, and as rows they do not.
  if (n <= tiles.columns / 2 && m > n) {
    multiply(tiles, n, m, k, columns, rows, {c, 1, n, accumulate});
  } else {
    multiply(tiles, m, n, k, rows, columns, {c, n, 1, accumulate});
  }
}

template <class T>
void gemm(Transpose transpose_a, Transpose transpose_b, std::int64_t m, std::int64_t n,
          std::int64_t k, const T* a, const T* b, T* c, bool accumulate) {
  gemm_with(tiles<T>(), transpose_a, transpose_b, m, n, k, a, b, c, accumulate);
}

#define LOCKSTEP_INSTANTIATE(T)                                                                   \
  template void pack_blocks<T>(std::int64_t, std::int64_t, const T*, T*);                         \
  template const Tiles<T>& tiles<T>();                                                            \
  template void gemm<T>(Transpose, Transpose, std::int64_t, std::int64_t, std::int64_t, const T*, \
                        const T*, T*, bool);                                                      \
  template void gemm_with<T>(const Tiles<T>&, Transpose, Transpose, std::int64_t, std::int64_t,   \
                             std::int64_t, const T*, const T*, T*, bool);
LOCKSTEP_INSTANTIATE(float)
LOCKSTEP_INSTANTIATE(double)
#undef LOCKSTEP_INSTANTIATE

}  // namespace lockstep::kernels
