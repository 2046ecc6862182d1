#include "lockstep/tensor/tensor.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace tensor_test {

using testing::throws;

template <class T>
std::vector<T> values(const Tensor& tensor) {
  return {tensor.span<T>().begin(), tensor.span<T>().end()};
}

Tensor count(const Shape& shape) {
  std::vector<double> numbers(static_cast<std::size_t>(shape.size()));
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<double>(i);
  return Tensor::from(numbers, shape);
}

TEST(Tensor, is_undefined_by_default) {
  Tensor tensor;
  EXPECT_FALSE(tensor.defined());
  EXPECT_FALSE(tensor.borrowed());
  EXPECT_FALSE(tensor.clone().defined());
  EXPECT_FALSE(tensor.to(DType::f64).defined());
  EXPECT_TRUE(throws<StateError>([&] { tensor.data<float>(); }, "undefined"));
  EXPECT_TRUE(throws<StateError>([&] { tensor.fill(1); }, "undefined"));
  EXPECT_TRUE(throws<StateError>([&] { tensor.copy_from(Tensor::zeros({})); }, "undefined"));
  EXPECT_TRUE(throws<StateError>([&] { Tensor::zeros({}).copy_from(tensor); }, "undefined"));
  EXPECT_TRUE(throws<ShapeError>([&] { tensor.item(); }));
  EXPECT_TRUE(throws<ShapeError>([&] { tensor.rows(0, 0); }));
}

TEST(Tensor, is_made_with_any_dtype_and_shape) {
  for (const DType dtype : {DType::f32, DType::f64, DType::i64, DType::u8}) {
    for (const Shape& shape : {Shape{}, Shape{0}, Shape{3}, Shape{2, 3}, Shape{2, 0, 3}}) {
      const Tensor zeros = Tensor::zeros(shape, dtype);
      EXPECT_TRUE(zeros.defined());
      EXPECT_FALSE(zeros.borrowed());
      EXPECT_EQ(zeros.dtype(), dtype);
      EXPECT_EQ(zeros.shape(), shape);
      EXPECT_EQ(zeros.size(), shape.size());
      EXPECT_EQ(zeros.bytes(), static_cast<std::size_t>(shape.size()) * item_size(dtype));
      const std::vector<std::byte> nothing(zeros.bytes() + 1);  // memcmp takes no null
      EXPECT_EQ(std::memcmp(zeros.raw(), nothing.data(), zeros.bytes()), 0);
      EXPECT_TRUE(bit_equal(Tensor::full(shape, 7, dtype).to(DType::f64),
                            Tensor::full(shape, 7, DType::f64)));
    }
  }
}

TEST(Tensor, owned_starts_at_64_bytes_and_is_padded_to_them) {
  std::vector<Tensor> tensors;
  for (std::int64_t size = 0; size < 140; ++size) {
    Tensor tensor = tensors.emplace_back(Tensor::empty({size}, DType::u8));
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(tensor.raw()) % Tensor::alignment, 0U);
    std::memset(tensor.raw(), 1, (tensor.bytes() + 63) / 64 * 64);
  }
}

TEST(Tensor, of_more_bytes_than_there_are_is_refused) {
  EXPECT_TRUE(
      throws<ShapeError>([] { Tensor::empty({std::int64_t{1} << 62}, DType::f64); }, "too many"));
  EXPECT_TRUE(
      throws<ShapeError>([] { Tensor::empty({std::int64_t{1} << 61}, DType::f32); }, "too many"));
}

TEST(Tensor, from_copies) {
  std::vector<float> numbers{1, 2, 3, 4, 5, 6};
  const Tensor tensor = Tensor::from(numbers, {2, 3});
  numbers[0] = 9;
  EXPECT_EQ(values<float>(tensor), (std::vector<float>{1, 2, 3, 4, 5, 6}));
  EXPECT_TRUE(throws<ShapeError>(
      [&] {
        Tensor::from(numbers, {2, 2});
      },
      "(2, 2)", "needs 4", "found 6"));
}

TEST(Tensor, borrowed_is_the_memory_of_the_caller) {
  std::vector<std::int64_t> numbers{1, 2, 3};
  Tensor tensor = Tensor::borrow(numbers);
  EXPECT_TRUE(tensor.borrowed());
  EXPECT_EQ(tensor.raw(), numbers.data());
  EXPECT_EQ(tensor.shape(), Shape{3});
  EXPECT_EQ(tensor.dtype(), DType::i64);
  numbers[1] = 7;
  tensor.data<std::int64_t>()[0] = 5;
  EXPECT_EQ(values<std::int64_t>(tensor), numbers);
  EXPECT_EQ(numbers[0], 5);
  EXPECT_TRUE(tensor.rows(1, 2).borrowed());
  EXPECT_FALSE(tensor.clone().borrowed());
  const std::span<std::int64_t> memory(numbers);
  EXPECT_TRUE(throws<ShapeError>([&] { Tensor::borrow(memory, {2}); }, "needs 2", "found 3"));
}

TEST(Tensor, of_no_elements_can_be_borrowed_from_nowhere) {
  std::vector<double> none;
  const Tensor tensor = Tensor::borrow(none);
  EXPECT_TRUE(tensor.defined());
  EXPECT_TRUE(tensor.borrowed());
  EXPECT_EQ(tensor.size(), 0);
}

TEST(Tensor, copies_of_a_handle_share_memory_that_outlives_the_first) {
  Tensor copy, view;
  {
    Tensor first = count({3, 2});
    copy = first;
    view = first.rows(2, 3);
    first.fill(8);
  }
  EXPECT_EQ(values<double>(copy), std::vector<double>(6, 8));
  copy = {};
  EXPECT_EQ(values<double>(view), std::vector<double>(2, 8));
}

TEST(Tensor, clone_has_memory_of_its_own) {
  Tensor original = count({2, 2});
  const Tensor clone = original.clone();
  EXPECT_TRUE(bit_equal(original, clone));
  original.fill(0);
  EXPECT_EQ(values<double>(clone), (std::vector<double>{0, 1, 2, 3}));
}

TEST(Tensor, access_with_another_type_is_refused) {
  Tensor tensor = Tensor::zeros({2}, DType::f32);
  EXPECT_TRUE(throws<DTypeError>([&] { tensor.span<double>(); }, "has dtype f32", "as f64"));
  EXPECT_TRUE(throws<DTypeError>([&] { std::as_const(tensor).data<std::uint8_t>(); }, "as u8"));
  EXPECT_NO_THROW(tensor.span<float>());
}

TEST(Tensor, item_reads_one_element_of_any_dtype) {
  EXPECT_EQ(Tensor::full({}, 2.5, DType::f32).item(), 2.5);
  EXPECT_EQ(Tensor::full({1, 1}, -2.5, DType::f64).item(), -2.5);
  EXPECT_EQ(Tensor::full({}, -3, DType::i64).item(), -3);
  EXPECT_EQ(Tensor::full({}, 255, DType::u8).item(), 255);
  EXPECT_TRUE(throws<ShapeError>([] { Tensor::zeros({2}).item(); }, "one element", "(2)"));
  EXPECT_TRUE(throws<ShapeError>([] { Tensor::zeros({0}).item(); }, "(0)"));
}

TEST(Tensor, to_converts_each_element) {
  const Tensor source = Tensor::from(std::vector<double>{-1.75, 0, 3.1}, {3});
  EXPECT_EQ(values<float>(source.to(DType::f32)), (std::vector<float>{-1.75F, 0, 3.1F}));
  EXPECT_EQ(values<std::int64_t>(source.to(DType::i64)), (std::vector<std::int64_t>{-1, 0, 3}));
  const Tensor bytes = Tensor::from(std::vector<std::uint8_t>{0, 128, 255}, {3});
  EXPECT_EQ(values<float>(bytes.to(DType::f32)), (std::vector<float>{0, 128, 255}));
  Tensor same = source.to(DType::f64);
  same.fill(0);
  EXPECT_EQ(source.data<double>()[0], -1.75) << "to() of the same dtype is a copy";
}

TEST(Tensor, reshape_is_a_view_of_the_same_size) {
  Tensor tensor = count({2, 3});
  Tensor view = tensor.reshape({3, 2});
  EXPECT_EQ(view.shape(), (Shape{3, 2}));
  EXPECT_EQ(view.raw(), tensor.raw());
  EXPECT_EQ(tensor.shape(), (Shape{2, 3}));
  EXPECT_EQ(count({1}).reshape({}).item(), 0);
  EXPECT_TRUE(throws<ShapeError>([&] { tensor.reshape({4}); }, "(2, 3)", "(4)"));
}

TEST(Tensor, rows_are_a_view_along_the_first_axis) {
  Tensor tensor = count({4, 2, 3});
  Tensor rows = tensor.rows(1, 3);
  EXPECT_EQ(rows.shape(), (Shape{2, 2, 3}));
  EXPECT_EQ(rows.data<double>()[0], 6);
  EXPECT_EQ(rows.data<double>()[11], 17);
  rows.fill(-1);
  EXPECT_EQ(tensor.data<double>()[5], 5);
  EXPECT_EQ(tensor.data<double>()[6], -1);
  EXPECT_EQ(tensor.data<double>()[17], -1);
  EXPECT_EQ(tensor.data<double>()[18], 18);
  EXPECT_EQ(tensor.rows(4, 4).shape(), (Shape{0, 2, 3}));
  EXPECT_EQ(tensor.rows(0, 4).size(), 24);
  EXPECT_EQ(Tensor::zeros({0, 3}).rows(0, 0).shape(), (Shape{0, 3}));
  EXPECT_EQ(Tensor::zeros({3, 0}).rows(1, 3).shape(), (Shape{2, 0}));
  EXPECT_TRUE(throws<ShapeError>([&] { tensor.rows(0, 5); }, "rows 0 to 5", "(4, 2, 3)"));
  EXPECT_TRUE(throws<ShapeError>([&] { tensor.rows(-1, 2); }, "rows -1 to 2"));
  EXPECT_TRUE(throws<ShapeError>([&] { tensor.rows(3, 2); }, "rows 3 to 2"));
  EXPECT_TRUE(throws<ShapeError>([] { Tensor::zeros({}).rows(0, 1); }, "()"));
}

TEST(Tensor, window_is_a_view_of_a_range) {
  constexpr std::int64_t largest = std::numeric_limits<std::int64_t>::max();
  const Tensor tensor = count({3, 4});
  const Tensor window = tensor.window(5, {2, 2}).window(1, {3});
  EXPECT_EQ(values<double>(window), (std::vector<double>{6, 7, 8}));
  EXPECT_EQ(tensor.window(12, {0}).size(), 0);
  EXPECT_EQ(tensor.window(11, {}).item(), 11);
  EXPECT_TRUE(
      throws<ShapeError>([&] { tensor.window(9, {4}); }, "4 elements at 9", "tensor of 12"));
  EXPECT_TRUE(throws<ShapeError>([&] { tensor.window(-1, {1}); }, "at -1"));
  EXPECT_TRUE(throws<ShapeError>([&] { tensor.window(largest, {1}); }, "outside"));
  EXPECT_TRUE(throws<ShapeError>([&] { tensor.window(1, {std::int64_t{1} << 62}); }, "outside"));
}

TEST(Tensor, copy_from_takes_the_elements_of_an_equal_tensor) {
  Tensor target = Tensor::zeros({2, 2}, DType::f64);
  const void* memory = target.raw();
  target.copy_from(count({2, 2}));
  EXPECT_EQ(values<double>(target), (std::vector<double>{0, 1, 2, 3}));
  EXPECT_EQ(target.raw(), memory);
  EXPECT_TRUE(throws<ShapeError>([&] { target.copy_from(count({4})); }, "expected shape (2, 2)",
                                 "found (4)"));
  EXPECT_TRUE(throws<DTypeError>(
      [&] {
        target.copy_from(Tensor::zeros({2, 2}));
      },
      "expected dtype f64", "found f32"));
  EXPECT_EQ(values<double>(target), (std::vector<double>{0, 1, 2, 3}));
}

TEST(Tensor, copy_from_an_overlapping_view_moves) {
  const Tensor tensor = count({6});
  tensor.window(1, {5}).copy_from(tensor.window(0, {5}));
  EXPECT_EQ(values<double>(tensor), (std::vector<double>{0, 0, 1, 2, 3, 4}));
}

TEST(Tensor, check_same_names_what_differs) {
  const Tensor a = count({2});
  EXPECT_NO_THROW(check_same(a, count({2}), "weight"));
  EXPECT_TRUE(
      throws<ShapeError>([&] { check_same(a, count({3}), "weight"); }, "weight", "(2)", "(3)"));
  EXPECT_TRUE(
      throws<DTypeError>([&] { check_same(a, Tensor::zeros({2}), "weight"); }, "weight", "f64"));
  EXPECT_TRUE(throws<StateError>([&] { check_same(a, Tensor(), "weight"); }, "weight"));
}

TEST(Tensor, bit_equal_tells_bits_apart_and_not_values) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto scalar = [](double value) { return Tensor::full({}, value, DType::f64); };
  EXPECT_TRUE(bit_equal(scalar(nan), scalar(nan)));
  EXPECT_FALSE(bit_equal(scalar(nan), scalar(std::copysign(nan, -1))));
  EXPECT_FALSE(bit_equal(scalar(0.0), scalar(-0.0)));
  EXPECT_FALSE(bit_equal(count({2, 3}), count({3, 2})));
  EXPECT_FALSE(bit_equal(Tensor::zeros({2}, DType::f64), Tensor::zeros({2}, DType::i64)));
  EXPECT_TRUE(bit_equal(Tensor(), Tensor()));
  EXPECT_FALSE(bit_equal(Tensor(), Tensor::zeros({})));
  EXPECT_TRUE(bit_equal(Tensor::zeros({0}), Tensor::zeros({0})));
}

}  // namespace tensor_test
}  // namespace lockstep
