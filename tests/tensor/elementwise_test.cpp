#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "lockstep/testing/mpi_test.hpp"
#include "tensor/kernel_fixture.hpp"
#include "tensor/kernels.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace elementwise_test {

using testing::draw;
using testing::Kernels;
using testing::same_bits;
using Floating = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Kernels, Floating);

enum class Function { exp, log, tanh, sigmoid };

template <class T>
void map(Function function, std::size_t n, const T* x, T* y) {
  const auto count = static_cast<std::int64_t>(n);
  switch (function) {
    case Function::exp:
      return kernels::exp(count, x, y);
    case Function::log:
      return kernels::log(count, x, y);
    case Function::tanh:
      return kernels::activate(Activation::tanh, count, x, y);
    case Function::sigmoid:
      return kernels::activate(Activation::sigmoid, count, x, y);
  }
}

double reference(Function function, double x) {
  switch (function) {
    case Function::exp:
      return std::exp(x);
    case Function::log:
      return std::log(x);
    case Function::tanh:
      return std::tanh(x);
    case Function::sigmoid:
      return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x));
  }
  return 0;
}

constexpr Function all_functions[] = {Function::exp, Function::log, Function::tanh,
                                      Function::sigmoid};

TYPED_TEST(Kernels, map_is_accurate_to_a_few_bits) {
  using T = TypeParam;
  for (const Function function : all_functions) {
    std::vector<T> x = draw<T>(1000, 4, function == Function::log ? 1e-6 : -20, 20);
    for (T tiny = T{1e-3F}; tiny > std::numeric_limits<T>::min() * 4; tiny /= 10) {
      x.push_back(tiny);
      if (function != Function::log) x.push_back(-tiny);
    }
    std::vector<T> y(x.size());
    map(function, x.size(), x.data(), y.data());
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double expected = reference(function, static_cast<double>(x[i]));
      const double scale =
          function == Function::log ? std::max(1.0, std::abs(expected)) : std::abs(expected);
      ASSERT_NEAR(static_cast<double>(y[i]), expected, 8 * this->epsilon * scale)
          << "function " << static_cast<int>(function) << " of " << x[i];
    }
  }
}

TYPED_TEST(Kernels, map_gives_an_element_the_same_bits_at_every_place) {
  using T = TypeParam;
  for (const Function function : all_functions) {
    const std::vector<T> x = draw<T>(70, 5, 0.01, 9);
    std::vector<T> alone(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) map(function, 1, &x[i], &alone[i]);
    for (std::size_t begin = 0; begin < 20; ++begin) {
      for (const std::size_t n : {1U, 7U, 16U, 33U, 50U}) {
        std::vector<T> y(n);
        map(function, n, x.data() + begin, y.data());
        ASSERT_TRUE(same_bits(y.data(), alone.data() + begin, n))
            << "function " << static_cast<int>(function) << " begin " << begin << " n " << n;
      }
    }
    std::vector<T> in_place = x;
    map(function, x.size(), in_place.data(), in_place.data());
    EXPECT_TRUE(same_bits(in_place.data(), alone.data(), x.size()));
  }
}

TYPED_TEST(Kernels, map_knows_the_limits) {
  using T = TypeParam;
  const auto of = [](Function function, T x) {
    // Among finite neighbours, in the middle of a block.
    std::vector<T> block(40, T{1});
    block[9] = x;
    map(function, 40, block.data(), block.data());
    EXPECT_TRUE(std::isfinite(block[8]));
    EXPECT_TRUE(std::isfinite(block[10]));
    return block[9];
  };
  for (const Function function : all_functions) EXPECT_TRUE(std::isnan(of(function, this->nan)));
  const T largest = std::numeric_limits<T>::max();
  EXPECT_EQ(of(Function::exp, this->infinity), this->infinity);
  EXPECT_EQ(of(Function::exp, largest), this->infinity);
  EXPECT_EQ(of(Function::exp, -this->infinity), 0);
  EXPECT_EQ(of(Function::exp, -largest), 0);
  EXPECT_EQ(of(Function::exp, 0), 1);
  EXPECT_EQ(of(Function::log, this->infinity), this->infinity);
  EXPECT_EQ(of(Function::log, 0), -this->infinity);
  EXPECT_TRUE(std::isnan(of(Function::log, -1)));
  EXPECT_EQ(of(Function::log, 1), 0);
  EXPECT_EQ(of(Function::tanh, this->infinity), 1);
  EXPECT_EQ(of(Function::tanh, -this->infinity), -1);
  EXPECT_EQ(of(Function::sigmoid, this->infinity), 1);
  EXPECT_EQ(of(Function::sigmoid, -this->infinity), 0);
  EXPECT_EQ(of(Function::sigmoid, -largest), 0);
  EXPECT_EQ(of(Function::sigmoid, 0), T{0.5F});
}

TYPED_TEST(Kernels, a_bias_is_added_before_an_activation) {
  using T = TypeParam;
  const std::vector<T> x{-3, 0, 2, 4, -1, -5}, by_column{1, -1, 0}, by_row{2, -4};
  const auto rows = [&](Activation f) {
    std::vector<T> y = x;
    kernels::activate_rows(f, 2, 3, by_column.data(), y.data());
    return y;
  };
  const auto columns = [&](Activation f) {
    std::vector<T> y = x;
    kernels::activate_columns(f, 2, 3, by_row.data(), y.data());
    return y;
  };
  EXPECT_EQ(rows(Activation::none), (std::vector<T>{-2, -1, 2, 5, -2, -5}));
  EXPECT_EQ(columns(Activation::none), (std::vector<T>{-1, 2, 4, 0, -5, -9}));
  for (const Activation f : {Activation::relu, Activation::tanh, Activation::sigmoid}) {
    for (const bool of_rows : {true, false}) {
      std::vector<T> expected = of_rows ? rows(Activation::none) : columns(Activation::none);
      kernels::activate(f, 6, expected.data(), expected.data());
      EXPECT_EQ(of_rows ? rows(f) : columns(f), expected) << static_cast<int>(f) << of_rows;
    }
  }
}

TYPED_TEST(Kernels, relu_is_0_below_0_and_keeps_nan) {
  using T = TypeParam;
  const std::vector<T> x{-this->infinity, -1, -T{0}, 0, 2, this->infinity, this->nan};
  std::vector<T> y(7), slope(7);
  kernels::activate(Activation::relu, 7, x.data(), y.data());
  EXPECT_TRUE(std::isnan(y[6]));
  y[6] = 0;
  EXPECT_EQ(y, (std::vector<T>{0, 0, 0, 0, 2, this->infinity, 0}));
  y[6] = this->nan;
  const std::vector<T> infinite(7, this->infinity);
  kernels::activation_gradient(Activation::relu, 7, y.data(), infinite.data(), slope.data(), false);
  EXPECT_EQ(slope, (std::vector<T>{0, 0, 0, 0, this->infinity, this->infinity, 0}));
}

TYPED_TEST(Kernels, an_activation_has_the_gradient_of_the_closed_form) {
  using T = TypeParam;
  const std::vector<T> y{T{0.5F}, T{-0.25F}}, dy{2, 4};
  const auto gradient = [&](Activation f, bool accumulate) {
    std::vector<T> dx{1, 1};
    kernels::activation_gradient(f, 2, y.data(), dy.data(), dx.data(), accumulate);
    return dx;
  };
  EXPECT_EQ(gradient(Activation::none, false), (std::vector<T>{2, 4}));
  EXPECT_EQ(gradient(Activation::relu, true), (std::vector<T>{3, 1}));
  EXPECT_EQ(gradient(Activation::tanh, false), (std::vector<T>{T{1.5F}, T{3.75F}}));
  EXPECT_EQ(gradient(Activation::sigmoid, true), (std::vector<T>{T{1.5F}, T{-0.25F}}));
}

}  // namespace elementwise_test
}  // namespace lockstep
