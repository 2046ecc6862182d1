#include "tensor/gemm.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "lockstep/testing/mpi_test.hpp"
#include "tensor/kernel_fixture.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace gemm_test {

using kernels::Transpose;
using testing::draw;
using testing::same_bits;
using testing::Shifted;

template <class T>
class Gemm : public testing::Kernels<T> {};

using Floating = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Gemm, Floating);

struct GemmCase {
  Transpose ta, tb;
  std::int64_t m, n, k;
};

std::vector<GemmCase> gemm_cases() {
  std::vector<GemmCase> cases;
  const std::vector<std::vector<std::int64_t>> sizes{
      {1, 1, 1},    {1, 1, 70},   {1, 33, 20},  {33, 1, 20},   {20, 33, 1},   {2, 3, 4},
      {7, 5, 3},    {16, 16, 16}, {17, 31, 13}, {64, 10, 128}, {5, 300, 300}, {128, 65, 600},
      {70, 4, 300}, {3, 40, 257}, {900, 7, 9},  {0, 3, 2},     {3, 0, 2},     {3, 2, 0},
      {0, 0, 0},    {40, 40, 0},  {3, 3, 30}};
  for (const auto& size : sizes) {
    for (const Transpose ta : {Transpose::no, Transpose::yes}) {
      for (const Transpose tb : {Transpose::no, Transpose::yes}) {
        cases.push_back({ta, tb, size[0], size[1], size[2]});
      }
    }
  }
  return cases;
}

std::ostream& operator<<(std::ostream& out, const GemmCase& c) {
  return out << (c.ta == Transpose::yes ? "A^T " : "A ") << (c.tb == Transpose::yes ? "B^T " : "B ")
             << "m " << c.m << " n " << c.n << " k " << c.k;
}

// The sum that gemm() promises, one element at a time.
template <class T>
std::vector<T> in_order(const GemmCase& c, bool fused, const std::vector<T>& a,
                        const std::vector<T>& b, std::vector<T> result, bool accumulate) {
  const std::int64_t blocks = (c.k + 255) / 256;
  const std::int64_t longest = blocks == 0 ? 0 : (c.k + blocks - 1) / blocks;
  for (std::int64_t i = 0; i < c.m; ++i) {
    for (std::int64_t j = 0; j < c.n; ++j) {
      T& element = result[static_cast<std::size_t>(i * c.n + j)];
      if (!accumulate) element = 0;
      for (std::int64_t begin = 0; begin < c.k; begin += longest) {
        T sum = 0;
        for (std::int64_t l = begin; l < std::min(begin + longest, c.k); ++l) {
          const T x =
              a[static_cast<std::size_t>(c.ta == Transpose::yes ? l * c.m + i : i * c.k + l)];
          const T y =
              b[static_cast<std::size_t>(c.tb == Transpose::yes ? j * c.k + l : l * c.n + j)];
          sum = fused ? std::fma(x, y, sum) : sum + x * y;
        }
        element = begin == 0 && !accumulate ? sum : element + sum;
      }
    }
  }
  return result;
}

TYPED_TEST(Gemm, has_the_same_bits_with_all_instructions) {
  using T = TypeParam;
  std::vector<kernels::Tiles<T>> fused;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    fused.push_back(kernels::tiles_avx2<T>());
  }
  if (__builtin_cpu_supports("avx512f")) fused.push_back(kernels::tiles_avx512<T>());
  std::vector<kernels::Tiles<T>> rounded_twice{kernels::tiles_baseline<T>()};
  for (const GemmCase& c : gemm_cases()) {
    const std::vector<T> a = draw<T>(c.m * c.k, 1), b = draw<T>(c.k * c.n, 2);
    const std::vector<T> before = draw<T>(c.m * c.n, 3);
    for (const bool accumulate : {false, true}) {
      for (const auto* sets : {&fused, &rounded_twice}) {
        const std::vector<T> expected = in_order(c, sets == &fused, a, b, before, accumulate);
        for (const kernels::Tiles<T>& tiles : *sets) {
          std::vector<T> found = before;
          kernels::gemm_with(tiles, c.ta, c.tb, c.m, c.n, c.k, a.data(), b.data(), found.data(),
                             accumulate);
          ASSERT_TRUE(same_bits(expected.data(), found.data(), found.size()))
              << c << " accumulate " << accumulate << ", tiles of " << tiles.rows << " x "
              << tiles.columns;
        }
      }
    }
  }
}

TYPED_TEST(Gemm, is_the_sum_of_products) {
  using T = TypeParam;
  for (const GemmCase& c : gemm_cases()) {
    const std::vector<T> a = draw<T>(c.m * c.k, 1), b = draw<T>(c.k * c.n, 2);
    const std::vector<T> before = draw<T>(c.m * c.n, 3);
    for (const bool accumulate : {false, true}) {
      SCOPED_TRACE(::testing::Message() << c << " accumulate " << accumulate);
      std::vector<T> found = before;
      if (!accumulate) std::fill(found.begin(), found.end(), this->nan);
      kernels::gemm(c.ta, c.tb, c.m, c.n, c.k, a.data(), b.data(), found.data(), accumulate);
      for (std::int64_t i = 0; i < c.m; ++i) {
        for (std::int64_t j = 0; j < c.n; ++j) {
          const auto at = static_cast<std::size_t>(i * c.n + j);
          double expected = accumulate ? static_cast<double>(before[at]) : 0.0;
          for (std::int64_t l = 0; l < c.k; ++l) {
            const std::int64_t ia = c.ta == Transpose::yes ? l * c.m + i : i * c.k + l;
            const std::int64_t ib = c.tb == Transpose::yes ? j * c.k + l : l * c.n + j;
            expected += static_cast<double>(a[static_cast<std::size_t>(ia)]) *
                        static_cast<double>(b[static_cast<std::size_t>(ib)]);
          }
          ASSERT_NEAR(static_cast<double>(found[at]), expected,
                      this->epsilon * static_cast<double>(c.k + 1))
              << "row " << i << " column " << j;
        }
      }
    }
  }
}

TYPED_TEST(Gemm, does_not_depend_on_addresses) {
  using T = TypeParam;
  for (const GemmCase& c : gemm_cases()) {
    const std::vector<T> a = draw<T>(c.m * c.k, 1), b = draw<T>(c.k * c.n, 2);
    const std::vector<T> before = draw<T>(c.m * c.n, 3);
    for (const bool accumulate : {false, true}) {
      Shifted<T> expected(before, 0);
      kernels::gemm(c.ta, c.tb, c.m, c.n, c.k, Shifted<T>(a, 0).data(), Shifted<T>(b, 0).data(),
                    expected.data(), accumulate);
      for (const std::size_t offset : {1U, 2U, 3U, 5U, 8U}) {
        for (int which = 0; which < 3; ++which) {
          Shifted<T> x(a, which == 0 ? offset : 0), y(b, which == 1 ? offset : 0);
          Shifted<T> found(before, which == 2 ? offset : 0);
          kernels::gemm(c.ta, c.tb, c.m, c.n, c.k, x.data(), y.data(), found.data(), accumulate);
          EXPECT_TRUE(same_bits(expected.data(), found.data(), before.size()))
              << c << " accumulate " << accumulate << ": "
              << "ABC"[which] << " moved by " << offset;
        }
      }
    }
  }
}

TYPED_TEST(Gemm, lets_nan_and_infinity_through) {
  using T = TypeParam;
  for (const std::int64_t size : {2, 40}) {
    std::vector<T> a = draw<T>(size * size, 1, 0.5, 1), b = draw<T>(size * size, 2, 0.5, 1);
    std::vector<T> c(a.size());
    a[1] = this->infinity;
    b.back() = this->nan;
    kernels::gemm(Transpose::no, Transpose::no, size, size, size, a.data(), b.data(), c.data(),
                  false);
    EXPECT_EQ(c[0], this->infinity);
    EXPECT_TRUE(std::isnan(c[static_cast<std::size_t>(size) - 1]));
    EXPECT_TRUE(std::isnan(c.back()));
    EXPECT_TRUE(std::isfinite(c[static_cast<std::size_t>(size)]));
  }
}

}  // namespace gemm_test
}  // namespace lockstep
