#include "lockstep/tensor/shape.hpp"

#include <cstdint>
#include <limits>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace shape_test {

using testing::throws;

TEST(Shape, of_a_scalar_has_no_extents_and_one_element) {
  const Shape scalar;
  EXPECT_EQ(scalar.rank(), 0U);
  EXPECT_EQ(scalar.size(), 1);
  EXPECT_EQ(scalar.begin(), scalar.end());
  EXPECT_EQ(to_string(scalar), "()");
}

TEST(Shape, knows_its_extents) {
  const Shape shape{2, 3, 4};
  EXPECT_EQ(shape.rank(), 3U);
  EXPECT_EQ(shape.size(), 24);
  EXPECT_EQ(shape[0], 2);
  EXPECT_EQ(shape[2], 4);
  EXPECT_EQ(std::vector<std::int64_t>(shape.begin(), shape.end()),
            (std::vector<std::int64_t>{2, 3, 4}));
  EXPECT_EQ(to_string(shape), "(2, 3, 4)");
  EXPECT_EQ(to_string(Shape{5}), "(5)");
}

TEST(Shape, is_equal_only_with_the_same_extents_in_the_same_order) {
  EXPECT_EQ((Shape{2, 3}), (Shape{2, 3}));
  EXPECT_NE((Shape{2, 3}), (Shape{3, 2}));
  EXPECT_NE((Shape{6}), (Shape{2, 3}));
  EXPECT_NE(Shape{}, Shape{0});
  EXPECT_NE(Shape{1}, Shape{});
}

TEST(Shape, may_have_an_extent_of_zero) {
  const Shape shape{3, 0, 2};
  EXPECT_EQ(shape.size(), 0);
  EXPECT_EQ(to_string(shape), "(3, 0, 2)");
}

TEST(Shape, takes_at_most_eight_extents) {
  EXPECT_EQ((Shape{1, 2, 1, 2, 1, 2, 1, 2}).size(), 16);
  EXPECT_TRUE(throws<ShapeError>(
      [] {
        Shape({1, 1, 1, 1, 1, 1, 1, 1, 1});
      },
      "at most 8", "found 9"));
}

TEST(Shape, refuses_a_negative_extent) {
  EXPECT_TRUE(throws<ShapeError>([] { Shape({2, -1}); }, "negative extent -1", "(2, -1)"));
  EXPECT_TRUE(throws<ShapeError>([] { Shape({0, -1}); }, "negative extent -1"));
}

TEST(Shape, refuses_more_than_two_to_the_62_elements) {
  constexpr std::int64_t limit = std::int64_t{1} << 62;
  constexpr std::int64_t largest = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(Shape{limit}.size(), limit);
  EXPECT_EQ((Shape{limit / 4, 4}).size(), limit);
  EXPECT_TRUE(throws<ShapeError>([] { Shape({limit + 1}); }, "too many elements"));
  EXPECT_TRUE(throws<ShapeError>([] { Shape({2, limit}); }, "too many elements"));
  EXPECT_TRUE(throws<ShapeError>([] { Shape({largest, largest}); }, "too many elements"));
  // 2^64 elements, which is 0 where it overflows.
  EXPECT_TRUE(throws<ShapeError>(
      [] {
        Shape({std::int64_t{1} << 32, std::int64_t{1} << 32});
      },
      "too many elements"));
}

}  // namespace shape_test
}  // namespace lockstep
