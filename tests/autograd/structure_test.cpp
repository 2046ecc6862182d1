#include "lockstep/autograd/structure.hpp"

#include <algorithm>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/gradient_check.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace structure_test {

using testing::check_gradients;
using testing::throws;
using testing::uniform;
using Inputs = std::vector<Variable>;
using Numbers = std::vector<double>;

Numbers values(const Variable& x) {
  return {x.value().span<double>().begin(), x.value().span<double>().end()};
}

// 0, 1, 2, …
Variable count(const Shape& shape) {
  Numbers numbers;
  for (std::int64_t i = 0; i < shape.size(); ++i) numbers.push_back(static_cast<double>(i));
  return Tensor::from(numbers, shape);
}

TEST(Slice, has_a_range_along_any_axis) {
  const Variable x = count({2, 3, 2});
  EXPECT_EQ(values(slice(x, 0, 1, 2)), (Numbers{6, 7, 8, 9, 10, 11}));
  EXPECT_EQ(values(slice(x, 1, 0, 2)), (Numbers{0, 1, 2, 3, 6, 7, 8, 9}));
  EXPECT_EQ(values(slice(x, 2, 1, 2)), (Numbers{1, 3, 5, 7, 9, 11}));
  EXPECT_EQ(slice(x, 1, 3, 3).shape(), (Shape{2, 0, 2}));
  for (const std::size_t axis : {0U, 1U, 2U}) {
    check_gradients([axis](const Inputs& in) { return slice(in[0], axis, 1, 2); },
                    {uniform({2, 3, 4}, 1)});
  }
}

TEST(Slice, refuses_what_there_is_not) {
  const Variable x = count({2, 3});
  EXPECT_TRUE(throws<ShapeError>([&] { slice(x, 2, 0, 1); }, "no axis 2", "(2, 3)"));
  EXPECT_TRUE(throws<ShapeError>([&] { slice(x, 1, 2, 4); }, "[2, 4)", "axis 1", "(2, 3)"));
  EXPECT_TRUE(throws<ShapeError>([&] { slice(x, 1, 2, 1); }, "[2, 1)"));
  EXPECT_TRUE(throws<ShapeError>([&] { slice(x, 0, -1, 1); }, "[-1, 1)"));
}

TEST(Concatenate, puts_parts_one_after_another_along_any_axis) {
  const Variable a = count({2, 1, 2}), b = count({2, 2, 2});
  EXPECT_EQ(values(concatenate({a, b}, 1)), (Numbers{0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(values(concatenate({a, a}, 2)), (Numbers{0, 1, 0, 1, 2, 3, 2, 3}));
  EXPECT_EQ(concatenate({a, b, a}, 1).shape(), (Shape{2, 4, 2}));
  check_gradients(
      [](const Inputs& in) {
        return concatenate({in[0], in[1], in[0]}, 1);
      },
      {uniform({2, 3, 2}, 1), uniform({2, 1, 2}, 2)});
  check_gradients(
      [](const Inputs& in) {
        return concatenate({in[0], in[1]}, 0);
      },
      {uniform({2, 3}, 1), uniform({1, 3}, 2)});
}

TEST(Concatenate, refuses_what_does_not_fit) {
  const Variable a = count({2, 3});
  EXPECT_TRUE(throws<ShapeError>([] { concatenate({}, 0); }, "at least one part"));
  EXPECT_TRUE(throws<ShapeError>([&] { concatenate({a}, 2); }, "no axis 2"));
  EXPECT_TRUE(throws<ShapeError>([&] { concatenate({a, count({2, 2})}, 0); }, "(2, 3)", "(2, 2)"));
  EXPECT_TRUE(throws<ShapeError>([&] { concatenate({a, count({2, 3, 1})}, 0); }, "(2, 3, 1)"));
  EXPECT_TRUE(throws<DTypeError>(
      [&] {
        concatenate({a, Tensor::zeros({2, 3})}, 0);
      },
      "f64", "f32"));
}

TEST(Permute, moves_axes) {
  const Variable x = count({2, 3});
  EXPECT_EQ(values(permute(x, {1, 0})), (Numbers{0, 3, 1, 4, 2, 5}));
  const Variable y = permute(count({2, 3, 4}), {2, 0, 1});
  EXPECT_EQ(y.shape(), (Shape{4, 2, 3}));
  // y[i][j][k] = x[j][k][i]
  for (std::int64_t i = 0; i < 4; ++i) {
    for (std::int64_t j = 0; j < 2; ++j) {
      for (std::int64_t k = 0; k < 3; ++k) {
        EXPECT_EQ(values(y)[static_cast<std::size_t>((i * 2 + j) * 3 + k)],
                  static_cast<double>((j * 3 + k) * 4 + i));
      }
    }
  }
  EXPECT_EQ(permute(Tensor::zeros({0, 2}), {1, 0}).shape(), (Shape{2, 0}));
  check_gradients(
      [](const Inputs& in) {
        return permute(in[0], {1, 2, 0});
      },
      {uniform({2, 3, 4}, 1)});
  for (const std::vector<std::size_t>& order :
       {std::vector<std::size_t>{0}, {0, 0}, {0, 2}, {0, 1, 2}}) {
    EXPECT_TRUE(throws<ShapeError>([&] { permute(x, order); }, "each axis", "(2, 3)"));
  }
}

// In rectangles, whose edges are within axes, on them, or beyond.
TEST(Permute, moves_axes_of_any_extent_in_any_order) {
  for (const Shape& shape : {Shape{}, Shape{7}, Shape{16, 33}, Shape{1, 40}, Shape{17, 1, 16},
                             Shape{3, 20, 5}, Shape{2, 17, 3, 18}, Shape{2, 1, 5, 1, 19}}) {
    const Variable x = count(shape);
    std::vector<std::size_t> order(shape.rank());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    do {
      std::vector<std::size_t> back(order.size());
      for (std::size_t i = 0; i < order.size(); ++i) back[order[i]] = i;
      const Variable y = permute(x, order);
      ASSERT_EQ(values(permute(y, back)), values(x));
      // Element by element.
      std::vector<std::int64_t> index(order.size());
      for (const double found : values(y)) {
        std::int64_t expected = 0;
        for (std::size_t axis = 0; axis < order.size(); ++axis) {
          expected = expected * shape[axis] + index[back[axis]];
        }
        ASSERT_EQ(found, static_cast<double>(expected)) << to_string(shape);
        for (std::size_t i = order.size(); i-- > 0;) {
          if (++index[i] < y.shape()[i]) break;
          index[i] = 0;
        }
      }
    } while (std::next_permutation(order.begin(), order.end()));
  }
}

TEST(Permute, adds_up_gradients) {
  const Variable x(uniform({19, 18}, 1), true);
  const Variable factor = uniform({18, 19}, 2);
  sum(permute(x, {1, 0}) * factor + permute(x, {1, 0}) * factor).backward();
  const Numbers of_factor = values(factor);
  for (std::size_t i = 0; i < 19; ++i) {
    for (std::size_t j = 0; j < 18; ++j) {
      ASSERT_EQ(x.grad().span<double>()[i * 18 + j], 2 * of_factor[j * 19 + i]);
    }
  }
}

TEST(EmbeddingOperation, has_the_rows_that_indices_name) {
  const Variable weight(count({4, 2}).value(), true);
  const Tensor indices = Tensor::from(std::vector<std::int64_t>{3, 0, 3, 1}, {2, 2});
  const Variable y = embedding(indices, weight);
  EXPECT_EQ(y.shape(), (Shape{2, 2, 2}));
  EXPECT_EQ(values(y), (Numbers{6, 7, 0, 1, 6, 7, 2, 3}));
  check_gradients([&](const Inputs& in) { return embedding(indices, in[0]); },
                  {uniform({4, 3}, 1)});
}

TEST(EmbeddingOperation, refuses_what_does_not_fit) {
  const auto index = [](std::int64_t i) { return Tensor::from(std::vector<std::int64_t>{i}, {1}); };
  const Variable weight = count({4, 2});
  EXPECT_TRUE(throws<DataError>([&] { embedding(index(4), weight); }, "index 4", "[0, 4)"));
  EXPECT_TRUE(throws<DataError>([&] { embedding(index(-1), weight); }, "index -1"));
  EXPECT_TRUE(throws<ShapeError>([&] { embedding(index(0), count({4})); }, "(count, features)"));
  EXPECT_THROW(embedding(Tensor::zeros({1}), weight), DTypeError);
}

}  // namespace structure_test
}  // namespace lockstep
