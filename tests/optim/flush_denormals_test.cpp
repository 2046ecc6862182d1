#include "lockstep/core/flush_denormals.hpp"

#include <array>
#include <cfenv>
#include <limits>
#include <span>
#include <vector>

#include "lockstep/autograd/losses.hpp"
#include "lockstep/autograd/operations.hpp"
#include "lockstep/nn/layers.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/testing/mpi_test.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace flush_denormals_test {

// Whether arithmetic on this thread has them.
bool has_denormals() {
  volatile double least = 1e-308;
  volatile float least_float = 1e-38F, half = 0.5F;
  const bool results = least / 1e10 > 0 && least_float / 100 > 0;
  volatile float denormal = std::numeric_limits<float>::denorm_min() * 4;
  volatile float kept = denormal * half;
  EXPECT_EQ(results, kept > 0);
  return results;
}

TEST(FlushDenormals, lasts_as_long_as_it_lives) {
  ASSERT_TRUE(has_denormals());
  {
    const FlushDenormals flush;
    EXPECT_FALSE(has_denormals());
    {
      const FlushDenormals again;
      EXPECT_FALSE(has_denormals());
    }
    EXPECT_FALSE(has_denormals());
  }
  EXPECT_TRUE(has_denormals());
}

TEST(FlushDenormals, leaves_rounding_and_raised_flags_alone) {
  std::feclearexcept(FE_ALL_EXCEPT);
  {
    const FlushDenormals flush;
    std::fesetround(FE_UPWARD);
    std::feraiseexcept(FE_OVERFLOW);
  }
  EXPECT_EQ(std::fegetround(), FE_UPWARD);
  std::fesetround(FE_TONEAREST);
  EXPECT_EQ(std::fetestexcept(FE_OVERFLOW | FE_INVALID), FE_OVERFLOW);
  std::feclearexcept(FE_ALL_EXCEPT);
}

template <class T>
void expect_zeros(const Tensor& tensor) {
  for (const T number : tensor.span<T>()) EXPECT_EQ(number, T{0});
}

// 2⁻¹⁴⁰, or 2⁻¹⁰⁵⁰: times 2²⁰ it is still denormal for a product that does not take it for 0.
template <class T>
constexpr T denormal = std::numeric_limits<T>::min() * static_cast<T>(1.0 / (1 << 14));

template <class T>
class Flushing : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Flushing, Types);

TYPED_TEST(Flushing, is_in_operations_and_their_gradients) {
  using T = TypeParam;
  nn::Linear layer(3, 2, {.bias = false, .dtype = dtype_of<T>});
  layer.weight.mutable_value().fill(1 << 20);
  Variable x(Tensor::full({4, 3}, denormal<T>, dtype_of<T>));
  const Variable y = layer(x);
  expect_zeros<T>(y.value());
  mean(y).backward();
  expect_zeros<T>(layer.weight.grad());
  expect_zeros<T>((x * x).value());
  EXPECT_TRUE(has_denormals());
}

// What users add computes as the host does.
TYPED_TEST(Flushing, is_not_in_what_the_host_computes_in_between) {
  using T = TypeParam;
  Parameter parameter(Tensor::full({3}, 1, dtype_of<T>));
  int calls = 0;
  const auto look = [&] {
    ++calls;
    EXPECT_TRUE(has_denormals());
  };
  parameter.register_hook([&](const Parameter&) { look(); });
  const Variable twice =
      autograd::record(parameter.value().clone(), {parameter},
                       [&](const Tensor& gradient, std::span<autograd::GradientSlot> slots) {
                         look();
                         slots[0].pass(gradient);
                       });
  sum(twice * twice).backward();
  EXPECT_EQ(calls, 2);
}

// Rounded to the nearest, 0.9 times the least number would be that number again.
TYPED_TEST(Flushing, lets_a_momentum_fade_away) {
  using T = TypeParam;
  Parameter parameter(Tensor::full({40}, 1, dtype_of<T>));
  NamedOptimizer optimizer({{"p", parameter}}, optim::Adam({.lr = 0}));
  parameter.mutable_grad().fill(1);
  optimizer.step();
  parameter.mutable_grad().fill(0);
  for (int step = 0; step < 8000; ++step) optimizer.step();
  expect_zeros<T>(
      optimizer.state_dict().at("state").as_dict().at("p").as_dict().at("exp_avg").as_tensor());
}

struct NoOptions {
  double lr = 1;
  std::vector<optim::Field> fields() { return {{"lr", &lr, optim::Domain::non_negative}}; }
};

class Looking : public optim::BasicRule<Looking, NoOptions> {
 public:
  Looking() : BasicRule(NoOptions()) {}
  std::string_view name() const override { return "looking"; }
  std::span<const std::string_view> slots() const override { return {}; }
  template <class T>
  void step(const optim::UpdateRange<T>& range) const {
    EXPECT_TRUE(has_denormals());
    optim::for_each<0>(range, [](T&, T) { EXPECT_FALSE(has_denormals()); });
    EXPECT_TRUE(has_denormals());
  }
};

TYPED_TEST(Flushing, is_in_the_loop_of_an_update_rule_alone) {
  using T = TypeParam;
  Parameter parameter(Tensor::full({2}, 1, dtype_of<T>));
  NamedOptimizer optimizer({{"p", parameter}}, Looking());
  parameter.mutable_grad().fill(1);
  optimizer.step();
}

}  // namespace flush_denormals_test
}  // namespace lockstep
