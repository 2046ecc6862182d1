#include "comm/combine.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "comm/element.hpp"
#include "lockstep/tensor/random.hpp"
#include "lockstep/testing/mpi_test.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::comm {
namespace combine_test {

template <class T>
inline constexpr bool is_half = std::is_same_v<T, float16> || std::is_same_v<T, bfloat16>;
template <class T>
using Sum = std::conditional_t<is_half<T>, float, T>;

constexpr std::size_t most = 5000;
constexpr std::size_t counts[] = {0, 1, 15, 16, 17, 511, 512, 513, most};

// An order, and what it means, for each output.
struct Case {
  SumOrder order;
  std::vector<std::string> outputs;
};

std::vector<Case> single_outputs() {
  return {
      {SumOrder::chain(1), {"0"}},
      {SumOrder::chain(2), {"(0+1)"}},
      {SumOrder::nested({{2, 0}}), {"(2+0)"}},
      {SumOrder::chain(4), {"(((0+1)+2)+3)"}},
      {SumOrder::nested({{0, 1}, {2, 3}}), {"((0+1)+(2+3))"}},
      {SumOrder::nested({{0, 2}, {1, 3}}), {"((0+2)+(1+3))"}},
      {SumOrder::nested({{1}, {0}}), {"(1+0)"}},
      {SumOrder::nested({{0}, {1, 2, 3}, {4}}), {"((0+((1+2)+3))+4)"}},
      {SumOrder::nested({{3, 1}, {4}, {2, 0, 5}}), {"(((3+1)+4)+((2+0)+5))"}},
      {SumOrder::nested({{0}, {1}, {2}, {3}}), {"(((0+1)+2)+3)"}},
      {{.steps = {{0, 0}, {1, 0}, {2, 0}, {3, 3}}, .outputs = 1}, {"(0+(1+(2+3)))"}},
      {{.steps = {{0, 0}, {1, 1}, {2, 0}, {3, 2}, {4, 0}, {5, 1}, {6, 0}, {7, 3}}, .outputs = 1},
       {"(((0+1)+(2+3))+((4+5)+(6+7)))"}},
  };
}

std::vector<Case> several_outputs() {
  return {
      {{.steps = {{0, 0}, {1, 1}, {2, 0}, {3, 1}}, .outputs = 2}, {"(0+1)", "(2+3)"}},
      {{.steps = {{0, 0}, {1, 0}, {2, 2}, {5, 0}, {4, 0}, {3, 1}}, .outputs = 3},
       {"(0+(1+2))", "5", "(4+3)"}},
      {{.steps = {{2, 0}, {0, 0}, {1, 0}}, .outputs = 3}, {"2", "0", "1"}},
  };
}

constexpr std::size_t inputs = 8;

template <class T>
T drawn(std::uint64_t input, std::uint64_t i) {
  const RandomKey key = RandomKey(3).fold(input);
  if constexpr (std::is_same_v<T, std::uint8_t>) return static_cast<T>(key.bits(i));
  if constexpr (std::is_same_v<T, std::int64_t>) {
    return static_cast<T>(key.bits(i) >> 5) - (T{1} << 58);
  } else {
    // Of such different size that any other order rounds to other bits.
    const double size = std::exp2(static_cast<double>(key.bits(i) % 9));
    return static_cast<T>(static_cast<float>((2 * key.uniform(i) - 1) * size));
  }
}

template <class A>
A applied(ReduceOp op, A a, A b) {
  if (op == ReduceOp::max) return std::max(a, b);
  if (op == ReduceOp::min) return std::min(a, b);
  return static_cast<A>(a + b);
}

// Operands of type T, each at another distance from a line of cache.
template <class T>
class Numbers {
 public:
  explicit Numbers(const std::vector<double>& weights = std::vector<double>(inputs, 1))
      : weights_(weights) {
    for (std::size_t k = 0; k < inputs; ++k) {
      memory_.emplace_back(most + 64 + k);
      std::vector<T>& memory = memory_.back();
      for (std::size_t i = 0; i < most; ++i) memory[k + i] = drawn<T>(k, i);
      operands_.push_back({.data = memory.data() + k, .weight = weights[k]});
    }
  }
  std::vector<Operand> operands(std::size_t begin = 0) const {
    std::vector<Operand> all = operands_;
    for (Operand& one : all) one.data = static_cast<const T*>(one.data) + begin;
    return all;
  }
  const T* data(std::size_t input) const { return memory_[input].data() + input; }

  // Element i of what an expression such as "(0+(1+2))" says.
  template <class A = Sum<T>>
  A value(const std::string& expression, ReduceOp op, std::size_t i) const {
    const char* at = expression.c_str();
    return value_at<A>(at, op, i);
  }

 private:
  template <class A>
  A value_at(const char*& at, ReduceOp op, std::size_t i) const {
    if (*at != '(') {
      const auto input = static_cast<std::size_t>(*at++ - '0');
      const A number = static_cast<A>(data(input)[i]);
      const bool weighted = op == ReduceOp::sum || op == ReduceOp::mean;
      if (!weighted || std::is_integral_v<A>) return number;
      return static_cast<A>(number * static_cast<A>(weights_[input]));
    }
    ++at;
    const A a = value_at<A>(at, op, i);
    ++at;
    const A b = value_at<A>(at, op, i);
    ++at;
    return applied(op, a, b);
  }

  std::vector<std::vector<T>> memory_;
  std::vector<double> weights_;
  std::vector<Operand> operands_;
};

template <class T>
std::vector<ReduceOp> operations() {
  if (std::is_integral_v<T>) return {ReduceOp::sum, ReduceOp::max, ReduceOp::min};
  return {ReduceOp::sum, ReduceOp::mean, ReduceOp::max, ReduceOp::min};
}

template <class T>
std::vector<std::vector<double>> weights() {
  const std::vector<double> ones(inputs, 1);
  if (std::is_integral_v<T>) return {ones};
  return {ones, {0.5, 1, 3, 0.1, 1, 7, 0, -2}, {1, 1, 5, 1, 1, 1, 1, 1}};
}

template <class T>
std::vector<double> divisors() {
  if (std::is_integral_v<T>) return {1};
  return {1, 2, 3, 7.5, 0.25};
}

template <class T>
bool same_bits(const std::vector<T>& expected, const T* found, std::size_t count) {
  return count == 0 || std::memcmp(expected.data(), found, count * sizeof(T)) == 0;
}

// Memory for results, whose every other byte must stay as it is.
template <class T>
class Output {
 public:
  explicit Output(std::size_t shift) : memory_(most + 64), shift_(shift) { clear(); }
  void clear() {
    std::memset(static_cast<void*>(memory_.data()), 0xa5, memory_.size() * sizeof(T));
  }
  T* data() { return memory_.data() + shift_; }
  bool untouched_beyond(std::size_t count) const {
    const auto* bytes = reinterpret_cast<const unsigned char*>(memory_.data());
    for (std::size_t i = 0; i < memory_.size() * sizeof(T); ++i) {
      const bool inside = i >= shift_ * sizeof(T) && i < (shift_ + count) * sizeof(T);
      if (!inside && bytes[i] != 0xa5) return false;
    }
    return true;
  }

 private:
  std::vector<T> memory_;
  std::size_t shift_;
};

template <class T>
class CombineTest : public ::testing::Test {};
using Types = ::testing::Types<float, double, std::int64_t, std::uint8_t, float16, bfloat16>;
TYPED_TEST_SUITE(CombineTest, Types);

TYPED_TEST(CombineTest, gives_the_bits_of_a_plain_loop_in_each_output) {
  using A = Sum<TypeParam>;
  std::vector<Case> cases = single_outputs();
  for (Case& more : several_outputs()) cases.push_back(more);
  for (const std::vector<double>& weight : weights<TypeParam>()) {
    const Numbers<TypeParam> numbers(weight);
    for (const Case& one : cases) {
      for (const ReduceOp op : operations<TypeParam>()) {
        std::vector<std::vector<A>> expected;
        std::vector<Output<A>> found;
        std::vector<void*> outputs;
        for (const std::string& output : one.outputs) {
          std::vector<A>& all = expected.emplace_back(most);
          for (std::size_t i = 0; i < most; ++i) all[i] = numbers.value(output, op, i);
          found.emplace_back(found.size() + 1);
        }
        for (Output<A>& output : found) outputs.push_back(output.data());
        for (const std::size_t count : counts) {
          for (Output<A>& output : found) output.clear();
          combine(element_of<TypeParam>, op, count, numbers.operands(), one.order, outputs.data());
          for (std::size_t k = 0; k < found.size(); ++k) {
            ASSERT_TRUE(same_bits(expected[k], found[k].data(), count))
                << one.outputs[k] << ", " << count << " numbers, " << static_cast<int>(op);
            ASSERT_TRUE(found[k].untouched_beyond(count));
          }
        }
      }
    }
  }
}

TYPED_TEST(CombineTest, divides_and_rounds_once_at_the_end) {
  using A = Sum<TypeParam>;
  for (const std::vector<double>& weight : weights<TypeParam>()) {
    const Numbers<TypeParam> numbers(weight);
    const Numbers<A> sums(weight);
    for (const Case& one : single_outputs()) {
      const std::string& formula = one.outputs[0];
      for (const ReduceOp op : operations<TypeParam>()) {
        const bool divided = op == ReduceOp::sum || op == ReduceOp::mean;
        for (const double divisor : divisors<TypeParam>()) {
          std::vector<TypeParam> of_elements(most), of_sums(most);
          const auto finished = [&](A sum) {
            if (divided && divisor != 1) sum = static_cast<A>(sum / static_cast<A>(divisor));
            return static_cast<TypeParam>(sum);
          };
          for (std::size_t i = 0; i < most; ++i) {
            of_elements[i] = finished(numbers.value(formula, op, i));
            of_sums[i] = finished(sums.value(formula, op, i));
          }
          Output<TypeParam> found(3);
          for (const std::size_t count : counts) {
            found.clear();
            combine_and_conclude(element_of<TypeParam>, op, count, numbers.operands(), one.order,
                                 divisor, found.data());
            ASSERT_TRUE(same_bits(of_elements, found.data(), count) &&
                        found.untouched_beyond(count))
                << formula << " / " << divisor << ", " << count << " elements";
            found.clear();
            conclude(element_of<TypeParam>, op, count, sums.operands(), one.order, divisor,
                     found.data());
            ASSERT_TRUE(same_bits(of_sums, found.data(), count) && found.untouched_beyond(count))
                << formula << " / " << divisor << ", " << count << " sums";
          }
        }
      }
    }
  }
}

TYPED_TEST(CombineTest, does_not_depend_on_how_a_range_is_cut) {
  const Numbers<TypeParam> numbers(weights<TypeParam>().back());
  for (const Case& one : single_outputs()) {
    std::vector<TypeParam> whole(most), parts(most);
    const auto run = [&](std::vector<TypeParam>& result, std::size_t begin, std::size_t end) {
      combine_and_conclude(element_of<TypeParam>, ReduceOp::sum, end - begin,
                           numbers.operands(begin), one.order, divisors<TypeParam>().back(),
                           result.data() + begin);
    };
    run(whole, 0, most);
    for (std::uint64_t begin = 0, cut = 0; begin < most; ++cut) {
      const std::uint64_t end = std::min<std::uint64_t>(
          most, begin + 1 + RandomKey(9).below(cut % 3 == 0 ? 700 : 20, cut));
      run(parts, begin, end);
      begin = end;
    }
    ASSERT_TRUE(same_bits(whole, parts.data(), most)) << one.outputs[0];
  }
}

TYPED_TEST(CombineTest, writes_over_the_first_number_of_a_chain) {
  const SumOrder order = SumOrder::chain(3);
  std::vector<TypeParam> expected(most);
  Numbers<TypeParam> numbers;
  for (std::size_t i = 0; i < most; ++i) {
    expected[i] = static_cast<TypeParam>(numbers.value("((0+1)+2)", ReduceOp::sum, i));
  }
  std::vector<TypeParam> values(numbers.data(0), numbers.data(0) + most);
  std::vector<Operand> operands = numbers.operands();
  operands[0].data = values.data();
  combine_and_conclude(element_of<TypeParam>, ReduceOp::sum, most, operands, order, 1,
                       values.data());
  EXPECT_TRUE(same_bits(expected, values.data(), most));
}

TYPED_TEST(CombineTest, takes_nothing_of_nothing) {
  const std::vector<Operand> nothing(3, Operand{.data = nullptr});
  void* output = nullptr;
  combine(element_of<TypeParam>, ReduceOp::sum, 0, nothing, SumOrder::chain(3), &output);
  conclude(element_of<TypeParam>, ReduceOp::max, 0, nothing, SumOrder::chain(2), 1, nullptr);
  combine_and_conclude(element_of<TypeParam>, ReduceOp::sum, 0, nothing, SumOrder::chain(2), 1,
                       nullptr);
}

TEST(Combine, integers_are_neither_weighted_nor_divided) {
  const std::vector<std::int64_t> a{10, -3}, b{5, 8};
  const std::vector<Operand> operands{{.data = a.data(), .weight = 0.5},
                                      {.data = b.data(), .weight = 3}};
  std::vector<std::int64_t> sum(2);
  for (const double divisor : {2.0, 0.75}) {
    combine_and_conclude(Element::i64, ReduceOp::sum, 2, operands, SumOrder::chain(2), divisor,
                         sum.data());
    EXPECT_EQ(sum, (std::vector<std::int64_t>{15, 5}));
  }
}

TEST(Combine, integers_keep_every_bit) {
  const std::vector<std::int64_t> a{(std::int64_t{1} << 53) + 1,
                                    std::numeric_limits<std::int64_t>::max() - 1};
  const std::vector<std::int64_t> b{std::int64_t{1} << 60, 1};
  const std::vector<Operand> operands{{.data = a.data()}, {.data = b.data()}};
  std::vector<std::int64_t> sum(2);
  combine_and_conclude(Element::i64, ReduceOp::sum, 2, operands, SumOrder::chain(2), 1, sum.data());
  EXPECT_EQ(sum, (std::vector{a[0] + b[0], std::numeric_limits<std::int64_t>::max()}));
}

TEST(Combine, sums_of_integers_wrap) {
  constexpr auto largest = std::numeric_limits<std::int64_t>::max();
  const std::vector<std::int64_t> a{largest, -largest, 3}, b{1, -2, 4};
  const std::vector<Operand> operands{{.data = a.data()}, {.data = b.data()}};
  std::vector<std::int64_t> sum(3);
  combine_and_conclude(Element::i64, ReduceOp::sum, 3, operands, SumOrder::chain(2), 1, sum.data());
  EXPECT_EQ(sum, (std::vector<std::int64_t>{std::numeric_limits<std::int64_t>::min(), largest, 7}));
  const std::vector<std::uint8_t> c{200}, d{100};
  const std::vector<Operand> small{{.data = c.data()}, {.data = d.data()}};
  std::uint8_t byte = 0;
  combine_and_conclude(Element::u8, ReduceOp::sum, 1, small, SumOrder::chain(2), 1, &byte);
  EXPECT_EQ(byte, 44);
}

TEST(Combine, element_sizes_are_those_of_the_types) {
  EXPECT_EQ(item_size(Element::f32), 4U);
  EXPECT_EQ(item_size(Element::f64), 8U);
  EXPECT_EQ(item_size(Element::i64), 8U);
  EXPECT_EQ(item_size(Element::u8), 1U);
  EXPECT_EQ(item_size(Element::f16), 2U);
  EXPECT_EQ(item_size(Element::bf16), 2U);
  for (const Element half : {Element::f16, Element::bf16}) EXPECT_EQ(accumulator_size(half), 4U);
  for (const Element own : {Element::f32, Element::f64, Element::i64, Element::u8}) {
    EXPECT_EQ(accumulator_size(own), item_size(own));
  }
}

}  // namespace combine_test
}  // namespace lockstep::comm
