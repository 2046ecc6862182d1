// That the kernels convert half precision as core/half does, with hardware for it or without.

#include <bit>
#include <cstring>
#include <limits>
#include <vector>

#include "comm/combine.hpp"
#include "comm/element.hpp"
#include "lockstep/tensor/random.hpp"
#include "lockstep/testing/mpi_test.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::comm {
namespace combine_half_test {

template <class Half>
class CombineHalfTest : public ::testing::Test {};
using Halves = ::testing::Types<float16, bfloat16>;
TYPED_TEST_SUITE(CombineHalfTest, Halves);

template <class Half>
std::vector<Half> all_patterns() {
  std::vector<Half> all(65536);
  for (std::uint32_t i = 0; i < all.size(); ++i) all[i].bits = static_cast<std::uint16_t>(i);
  return all;
}

template <class A, class B>
std::size_t differences(const std::vector<A>& a, const std::vector<B>& b) {
  std::size_t different = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    different += std::memcmp(&a[i], &b[i], sizeof(A)) != 0;
  }
  return different;
}

// At several distances, so that a number is met in the vectors and in the rest after them.
constexpr std::size_t shifts[] = {0, 1, 5, 13};

TYPED_TEST(CombineHalfTest, reads_every_pattern_as_core_does) {
  const std::vector<TypeParam> all = all_patterns<TypeParam>();
  std::vector<float> expected(all.size());
  for (std::size_t i = 0; i < all.size(); ++i) expected[i] = static_cast<float>(all[i]);
  for (const std::size_t shift : shifts) {
    std::vector<float> found(all.size());
    for (std::size_t begin = 0; begin < all.size(); begin += 16 + shift) {
      const std::size_t n = std::min<std::size_t>(16 + shift, all.size() - begin);
      const Operand operand{.data = all.data() + begin};
      void* output = found.data() + begin;
      combine(element_of<TypeParam>, ReduceOp::sum, n, {&operand, 1}, SumOrder::chain(1), &output);
    }
    EXPECT_EQ(differences(expected, found), 0U) << shift;
  }
}

TYPED_TEST(CombineHalfTest, one_operand_alone_becomes_what_core_makes_of_it) {
  const std::vector<TypeParam> all = all_patterns<TypeParam>();
  std::vector<TypeParam> expected, found(all.size());
  for (const TypeParam& one : all) {
    expected.push_back(static_cast<TypeParam>(static_cast<float>(one)));
  }
  const Operand operand{.data = all.data()};
  for (const ReduceOp op : {ReduceOp::sum, ReduceOp::max}) {
    combine_and_conclude(element_of<TypeParam>, op, all.size(), {&operand, 1}, SumOrder::chain(1),
                         1, found.data());
    EXPECT_EQ(differences(expected, found), 0U);
  }
}

TYPED_TEST(CombineHalfTest, rounds_floats_as_core_does) {
  std::vector<float> numbers;
  const auto add = [&](std::uint32_t bits) {
    for (const std::uint32_t sign : {0U, 0x80000000U}) {
      numbers.push_back(std::bit_cast<float>(bits | sign));
    }
  };
  // Every number of half precision, and what lies at, and close to, the middle of two.
  for (std::uint32_t high = 0; high < 0x8000; ++high) {
    for (const std::uint32_t low : {0U, 1U, 0x7fffU, 0x8000U, 0x8001U, 0xffffU}) {
      add(high << 16 | low);
    }
  }
  for (std::uint32_t high = 0x38000000U >> 13; high < 0x48000000U >> 13; ++high) {
    for (const std::uint32_t low : {0U, 1U, 0xfffU, 0x1000U, 0x1001U, 0x1fffU}) {
      add(high << 13 | low);
    }
  }
  for (std::uint64_t i = 0; i < 200000; ++i) {
    add(static_cast<std::uint32_t>(RandomKey(1).bits(i)) & 0x7fffffffU);
  }
  std::vector<TypeParam> expected, found(numbers.size());
  for (const float number : numbers) expected.emplace_back(number);
  const Operand operand{.data = numbers.data()};
  conclude(element_of<TypeParam>, ReduceOp::sum, numbers.size(), {&operand, 1}, SumOrder::chain(1),
           1, found.data());
  EXPECT_EQ(differences(expected, found), 0U);
}

TYPED_TEST(CombineHalfTest, sums_are_rounded_once) {
  // Each sum but the last lies between two numbers of half precision.
  const float step = std::is_same_v<TypeParam, float16> ? 0x1p-11F : 0x1p-8F;
  const std::vector<TypeParam> one(100, TypeParam(1.0F)), little(100, TypeParam(step));
  const std::vector<Operand> operands{
      {.data = one.data()}, {.data = little.data()}, {.data = little.data()}};
  std::vector<TypeParam> found(100);
  combine_and_conclude(element_of<TypeParam>, ReduceOp::sum, 100, operands, SumOrder::chain(3), 1,
                       found.data());
  for (const TypeParam& sum : found) EXPECT_EQ(static_cast<float>(sum), 1 + 2 * step);
}

// Which NaN comes of two is not promised, but that it is one is.
TYPED_TEST(CombineHalfTest, a_nan_stays_one) {
  std::vector<TypeParam> a(100, TypeParam(std::numeric_limits<float>::quiet_NaN()));
  std::vector<TypeParam> b(100, TypeParam(2.0F));
  const std::vector<Operand> operands{{.data = a.data()}, {.data = b.data()}};
  std::vector<TypeParam> found(100);
  combine_and_conclude(element_of<TypeParam>, ReduceOp::mean, 100, operands, SumOrder::chain(2), 2,
                       found.data());
  for (const TypeParam& sum : found) {
    const auto value = static_cast<float>(sum);
    EXPECT_NE(value, value);
  }
}

}  // namespace combine_half_test
}  // namespace lockstep::comm
