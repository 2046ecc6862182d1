#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <iterator>
#include <limits>
#include <numbers>
#include <string_view>
#include <vector>

#include "lockstep/testing/mpi_test.hpp"
#include "tensor/activations.hpp"
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

// A function, what it is in more digits, and how far it may be from that.
template <class T>
struct Function {
  const char* name;
  std::function<void(std::int64_t n, const T* x, T* y)> map;
  long double (*exact)(long double x);
  double lowest, highest;  // of what it is tried on
  double ulps;             // of the result, or of 1
  bool of_one = false;     // has a zero, near which only that can be
};

template <class T>
auto with_gradient_of_ones(auto gradient) {
  return [gradient](std::int64_t n, const T* x, T* dx) {
    const std::vector<T> dy(static_cast<std::size_t>(n), T{1});
    gradient(n, x, dy.data(), dx);
  };
}

// Of a kernel that gives both.
template <class T>
auto value_of(auto kernel) {
  return [kernel](std::int64_t n, const T* x, T* y) { kernel(n, x, y, static_cast<T*>(nullptr)); };
}
template <class T>
auto slope_of(auto kernel) {
  return [kernel](std::int64_t n, const T* x, T* slope) {
    std::vector<T> y(static_cast<std::size_t>(n));
    kernel(n, x, y.data(), slope);
  };
}

long double sigmoid(long double x) { return 1 / (1 + std::exp(-x)); }
long double distribution(long double x) { return std::erfc(-x / std::sqrt(2.0L)) / 2; }
long double density(long double x) {
  return std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi_v<long double>);
}

template <class T>
std::vector<Function<T>> all_functions() {
  constexpr bool is_double = sizeof(T) == 8;
  constexpr double exp_range = is_double ? 700 : 85, normal_range = is_double ? 37 : 12.5;
  const auto activation = [](Activation f) {
    return [f](auto... of) { kernels::activate(f, of...); };
  };
  const auto gelu = [](auto... of) { kernels::gelu(of...); };
  const auto silu = [](auto... of) { kernels::silu(of...); };
  return {
      {"exp", [](auto... of) { kernels::exp(of...); }, [](auto x) { return std::exp(x); },
       -exp_range, exp_range, 1.25},
      {"log", [](auto... of) { kernels::log(of...); }, [](auto x) { return std::log(x); },
       std::numeric_limits<T>::min(), 1000, 2},
      {"log of about 1", [](auto... of) { kernels::log(of...); },
       [](auto x) { return std::log(x); }, 0.5, 2, 2},
      {"tanh", activation(Activation::tanh), [](auto x) { return std::tanh(x); }, -25, 25, 1.75},
      {"tanh of small", activation(Activation::tanh), [](auto x) { return std::tanh(x); }, -1, 1,
       1.75},
      {"sigmoid", activation(Activation::sigmoid), sigmoid, -exp_range, exp_range, 1.5},
      {"gelu", value_of<T>(gelu), [](auto x) { return x * distribution(x); }, -normal_range,
       normal_range, is_double ? 1.5 : 0.75},
      {"gelu'", slope_of<T>(gelu), [](auto x) { return distribution(x) + x * density(x); },
       -normal_range, normal_range, is_double ? 2 : 0.75, true},
      {"silu", value_of<T>(silu), [](auto x) { return x * sigmoid(x); }, -exp_range, exp_range,
       2.5},
      {"silu'", slope_of<T>(silu), [](auto x) { return sigmoid(x) * (1 + x * sigmoid(-x)); },
       -exp_range, exp_range, 3, true},
      {"softplus", [](auto n, auto x, auto y) { kernels::softplus(n, T{1}, x, y); },
       [](auto x) { return std::fmax(x, 0.0L) + std::log1p(std::exp(-std::abs(x))); }, -exp_range,
       exp_range, 3},
      {"softplus'", with_gradient_of_ones<T>([](auto n, auto x, auto dy, auto dx) {
         kernels::softplus_gradient(n, T{1}, x, dy, dx, false);
       }),
       sigmoid, -exp_range, exp_range, 1.5},
      {"elu", [](auto n, auto x, auto y) { kernels::elu(n, T{1}, x, y); },
       [](auto x) { return x > 0 ? x : std::expm1(x); }, -25, 2, 1.25},
      {"elu'", with_gradient_of_ones<T>([](auto n, auto x, auto dy, auto dx) {
         kernels::elu_gradient(n, T{1}, x, dy, dx, false);
       }),
       [](auto x) { return x > 0 ? 1 : std::exp(x); }, -exp_range, 2, 1.25},
  };
}

TYPED_TEST(Kernels, functions_are_exact_to_a_few_ulps) {
  using T = TypeParam;
  constexpr T smallest = std::numeric_limits<T>::min();
  for (const Function<T>& function : all_functions<T>()) {
    std::vector<T> x = draw<T>(30000, 4, function.lowest, function.highest);
    for (T tiny = T{0.5F}; tiny > smallest * 4; tiny /= 3) {
      x.push_back(tiny);
      if (function.lowest < 0) x.push_back(-tiny);
    }
    std::vector<T> y(x.size());
    function.map(std::ssize(x), x.data(), y.data());
    double worst = 0;
    std::size_t at = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const long double exact = function.exact(x[i]);
      const T near = std::max(function.of_one ? T{1} : static_cast<T>(std::abs(exact)), smallest);
      const long double ulp = std::nextafter(near, this->infinity) - near;
      const double error = static_cast<double>(std::abs(y[i] - exact) / ulp);
      if (error > worst) worst = error, at = i;
    }
    EXPECT_LE(worst, function.ulps) << function.name << " of " << x[at];
  }
}

TYPED_TEST(Kernels, functions_give_an_element_the_same_bits_at_every_place) {
  using T = TypeParam;
  for (const Function<T>& function : all_functions<T>()) {
    const std::vector<T> x = draw<T>(70, 5, 0.01, 9);
    std::vector<T> alone(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) function.map(1, &x[i], &alone[i]);
    for (std::size_t begin = 0; begin < 20; ++begin) {
      for (const std::size_t n : {1U, 7U, 16U, 33U, 50U}) {
        std::vector<T> y(n);
        function.map(std::ssize(y), x.data() + begin, y.data());
        ASSERT_TRUE(same_bits(y.data(), alone.data() + begin, n))
            << function.name << " begin " << begin << " n " << n;
      }
    }
    std::vector<T> in_place = x;
    function.map(std::ssize(x), in_place.data(), in_place.data());
    EXPECT_TRUE(same_bits(in_place.data(), alone.data(), x.size())) << function.name;
  }
}

TYPED_TEST(Kernels, functions_know_the_limits) {
  using T = TypeParam;
  const std::vector<Function<T>> functions = all_functions<T>();
  const auto value = [&](const Function<T>& function, T x) {
    // Among finite neighbours, in the middle of a block.
    std::vector<T> block(40, T{1});
    block[9] = x;
    function.map(40, block.data(), block.data());
    EXPECT_TRUE(std::isfinite(block[8])) << function.name;
    EXPECT_TRUE(std::isfinite(block[10])) << function.name;
    return block[9];
  };
  const auto of = [&](std::string_view name, T x) {
    for (const Function<T>& function : functions) {
      if (function.name == name) return value(function, x);
    }
    ADD_FAILURE() << "no function " << name;
    return x;
  };
  for (const Function<T>& function : functions) {
    EXPECT_TRUE(std::isnan(value(function, this->nan))) << function.name;
  }
  const T largest = std::numeric_limits<T>::max(), smallest = std::numeric_limits<T>::denorm_min();
  EXPECT_EQ(of("exp", this->infinity), this->infinity);
  EXPECT_EQ(of("exp", largest), this->infinity);
  EXPECT_EQ(of("exp", -this->infinity), 0);
  EXPECT_EQ(of("exp", -largest), 0);
  EXPECT_EQ(of("exp", 0), 1);
  EXPECT_EQ(of("log", this->infinity), this->infinity);
  EXPECT_EQ(of("log", 0), -this->infinity);
  EXPECT_TRUE(std::isnan(of("log", -1)));
  EXPECT_TRUE(std::isnan(of("log", -this->infinity)));
  EXPECT_EQ(of("log", 1), 0);
  EXPECT_EQ(of("log", smallest), static_cast<T>(std::log(static_cast<long double>(smallest))));
  EXPECT_EQ(of("tanh", this->infinity), 1);
  EXPECT_EQ(of("tanh", -this->infinity), -1);
  EXPECT_TRUE(std::signbit(of("tanh", -T{0})));
  EXPECT_EQ(of("sigmoid", this->infinity), 1);
  EXPECT_EQ(of("sigmoid", -this->infinity), 0);
  EXPECT_EQ(of("sigmoid", -largest), 0);
  EXPECT_EQ(of("sigmoid", 0), T{0.5F});
  EXPECT_EQ(of("gelu", this->infinity), this->infinity);
  EXPECT_EQ(of("gelu", largest), largest);
  EXPECT_EQ(of("gelu", -this->infinity), 0);
  EXPECT_EQ(of("gelu", -largest), 0);
  EXPECT_EQ(of("gelu'", this->infinity), 1);
  EXPECT_EQ(of("gelu'", -this->infinity), 0);
  EXPECT_EQ(of("gelu'", 0), T{0.5F});
  EXPECT_EQ(of("silu", this->infinity), this->infinity);
  EXPECT_EQ(of("silu", -largest), 0);
  EXPECT_EQ(of("softplus", this->infinity), this->infinity);
  EXPECT_EQ(of("softplus", largest), largest);
  EXPECT_EQ(of("softplus", -this->infinity), 0);
  EXPECT_EQ(of("elu", this->infinity), this->infinity);
  EXPECT_EQ(of("elu", -this->infinity), -1);
  EXPECT_EQ(of("elu'", this->infinity), 1);
  EXPECT_EQ(of("elu'", -this->infinity), 0);
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
