#include "tensor/kernels.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "lockstep/tensor/tensor.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "tensor/kernel_fixture.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace kernels_test {

using testing::draw;
using testing::Kernels;
using testing::same_bits;
using testing::Shifted;

using Floating = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Kernels, Floating);

TYPED_TEST(Kernels, sum_does_not_depend_on_the_address) {
  using T = TypeParam;
  for (const std::int64_t n : {0, 1, 15, 16, 17, 100, 1024, 1025, 5000}) {
    const std::vector<T> x = draw<T>(n, 6);
    const double expected = kernels::sum(n, Shifted<T>(x, 0).data());
    for (std::size_t offset = 1; offset < 17; ++offset) {
      const double found = kernels::sum(n, Shifted<T>(x, offset).data());
      ASSERT_TRUE(same_bits(&found, &expected, 1)) << n << " elements moved by " << offset;
    }
    double exact = 0;
    for (const T value : x) exact += static_cast<double>(value);
    EXPECT_NEAR(expected, exact, 32 * this->epsilon * std::sqrt(static_cast<double>(n)));
  }
}

TYPED_TEST(Kernels, sum_of_many_equal_numbers_does_not_drift) {
  using T = TypeParam;
  const std::int64_t n = 3'000'000;
  const std::vector<T> x(static_cast<std::size_t>(n), T{0.1F});
  const double expected = static_cast<double>(T{0.1F}) * static_cast<double>(n);
  EXPECT_NEAR(kernels::sum(n, x.data()), expected, 1e-5 * expected);
}

TYPED_TEST(Kernels, sum_lets_nan_and_infinity_through) {
  using T = TypeParam;
  for (const std::size_t place : {0U, 9U, 1500U, 2000U}) {
    std::vector<T> x(2001, T{1});
    x[place] = this->infinity;
    EXPECT_EQ(kernels::sum(2001, x.data()), static_cast<double>(this->infinity));
    x[place] = this->nan;
    EXPECT_TRUE(std::isnan(kernels::sum(2001, x.data())));
  }
}

TYPED_TEST(Kernels, sum_of_squares_is_that_of_whole_blocks_and_the_rest_wherever_it_lies) {
  using T = TypeParam;
  for (const std::int64_t n : {0, 1, 15, 16, 17, 127, 128, 129, 256, 257, 3001}) {
    std::vector<T> x(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<T>(i % 13) - T{4};  // exact
    double expected = 0;
    for (const T number : x) expected += static_cast<double>(number * number);
    for (std::size_t offset = 0; offset < 3; ++offset) {
      EXPECT_EQ(kernels::sum_squares(n, Shifted<T>(x, offset).data()), expected) << n;
    }
  }
}

TYPED_TEST(Kernels, sum_of_squares_is_in_double_precision_and_lets_nan_and_infinity_through) {
  using T = TypeParam;
  const T tiny = static_cast<T>(1e-3);
  std::vector<T> x(2001, tiny);
  EXPECT_NEAR(kernels::sum_squares(2001, x.data()), 2001 * std::pow(static_cast<double>(tiny), 2),
              1e-14);
  x[7] = static_cast<T>(1e30);  // whose square is no f32
  EXPECT_NEAR(kernels::sum_squares(2001, x.data()), 1e60, 1e53);
  for (const std::size_t i : {std::size_t{0}, std::size_t{1023}, std::size_t{2000}}) {
    x[i] = -this->infinity;
    EXPECT_EQ(kernels::sum_squares(2001, x.data()), static_cast<double>(this->infinity));
    x[i] = this->nan;
    EXPECT_TRUE(std::isnan(kernels::sum_squares(2001, x.data())));
    x[i] = 0;
  }
}

TYPED_TEST(Kernels, rows_are_summed_and_scaled) {
  using T = TypeParam;
  const std::vector<T> x{1, 2, 3, 4, 5, 6};
  std::vector<T> y{10, 20, 30};
  kernels::sum_rows(2, 3, x.data(), y.data(), true);
  EXPECT_EQ(y, (std::vector<T>{15, 27, 39}));
  kernels::sum_rows(2, 3, x.data(), y.data(), false);
  EXPECT_EQ(y, (std::vector<T>{5, 7, 9}));
  kernels::sum_rows(0, 3, x.data(), y.data(), false);
  EXPECT_EQ(y, (std::vector<T>{0, 0, 0}));
  std::vector<T> scaled{1, 2, 3, 1, 2, 3};
  kernels::add_scaled(6, T{2}, x.data(), scaled.data());
  EXPECT_EQ(scaled, (std::vector<T>{3, 6, 9, 9, 12, 15}));
  kernels::scale(6, T{-1}, scaled.data());
  EXPECT_EQ(scaled, (std::vector<T>{-3, -6, -9, -9, -12, -15}));
}

TYPED_TEST(Kernels, softmax_cross_entropy_is_that_of_the_definition) {
  using T = TypeParam;
  const std::int64_t rows = 5, classes = 37;
  const std::vector<T> logits = draw<T>(rows * classes, 7, -4, 4);
  const std::vector<std::int64_t> labels{0, 36, 7, 7, 20};
  std::vector<T> found(logits.size());
  const double loss =
      kernels::softmax_cross_entropy(rows, classes, logits.data(), labels.data(), found.data());
  double expected_loss = 0;
  for (std::int64_t row = 0; row < rows; ++row) {
    const auto at = [&](std::int64_t j) { return static_cast<std::size_t>(row * classes + j); };
    double total = 0;
    for (std::int64_t j = 0; j < classes; ++j)
      total += std::exp(static_cast<double>(logits[at(j)]));
    for (std::int64_t j = 0; j < classes; ++j) {
      const double expected = std::exp(static_cast<double>(logits[at(j)])) / total;
      EXPECT_NEAR(static_cast<double>(found[at(j)]), expected, 16 * this->epsilon * expected);
    }
    expected_loss +=
        std::log(total) - static_cast<double>(logits[at(labels[static_cast<std::size_t>(row)])]);
  }
  EXPECT_NEAR(loss, expected_loss, 16 * this->epsilon * expected_loss);
  EXPECT_EQ(kernels::softmax_cross_entropy<T>(0, 3, nullptr, nullptr, nullptr), 0);
}

TYPED_TEST(Kernels, softmax_cross_entropy_takes_huge_logits) {
  using T = TypeParam;
  const T huge = std::numeric_limits<T>::max() / 4;
  const std::vector<T> logits{huge, -huge, 0, 1000, 1000, -1000, -huge, -huge, -huge};
  const std::vector<std::int64_t> labels{0, 1, 2};
  std::vector<T> p(9);
  const double loss = kernels::softmax_cross_entropy(3, 3, logits.data(), labels.data(), p.data());
  EXPECT_NEAR(loss, std::log(2.0) + std::log(3.0), 4 * this->epsilon);
  EXPECT_EQ(p[0], 1);
  EXPECT_EQ(p[1], 0);
  EXPECT_EQ(p[2], 0);
  EXPECT_EQ(p[3], T{0.5F});
  EXPECT_EQ(p[4], T{0.5F});
  EXPECT_NEAR(static_cast<double>(p[8]), 1.0 / 3, this->epsilon);
  const std::int64_t unlikely = 1;
  EXPECT_EQ(kernels::softmax_cross_entropy(1, 3, logits.data(), &unlikely, p.data()),
            2 * static_cast<double>(huge));
}

TYPED_TEST(Kernels, softmax_cross_entropy_of_a_masked_class_is_that_without_it) {
  using T = TypeParam;
  const std::vector<T> masked{1, -this->infinity, 2};
  const std::int64_t label = 0;
  std::vector<T> p(3);
  const double loss = kernels::softmax_cross_entropy(1, 3, masked.data(), &label, p.data());
  EXPECT_EQ(p[1], 0);
  EXPECT_NEAR(loss, std::log(1 + std::exp(1.0)), 8 * this->epsilon);
}

TYPED_TEST(Kernels, softmax_cross_entropy_of_nan_is_nan) {
  using T = TypeParam;
  for (const std::size_t place : {0U, 1U, 39U}) {
    std::vector<T> logits(40, T{1}), p(40);
    logits[place] = this->nan;
    const std::int64_t label = 5;
    EXPECT_TRUE(std::isnan(kernels::softmax_cross_entropy(1, 40, logits.data(), &label, p.data())));
    EXPECT_TRUE(std::isnan(p[7]));
  }
}

}  // namespace kernels_test
}  // namespace lockstep
