#include "lockstep/nn/init.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::nn {
namespace init_test {

using testing::throws;

constexpr std::int64_t out = 200, in = 50, window = 9;

struct Statistics {
  double mean = 0, deviation = 0, largest = 0;
};

Statistics statistics(const Tensor& tensor) {
  const Tensor numbers = tensor.to(DType::f64);
  Statistics found;
  double squares = 0;
  for (const double x : numbers.span<double>()) {
    found.mean += x / static_cast<double>(numbers.size());
    squares += x * x / static_cast<double>(numbers.size());
    found.largest = std::max(found.largest, std::abs(x));
  }
  found.deviation = std::sqrt(squares - found.mean * found.mean);
  return found;
}

// The numbers of a tensor of 90,000 elements are close to those of the distribution.
void expect_uniform(const Tensor& weight, double bound) {
  const Statistics found = statistics(weight);
  EXPECT_NEAR(found.mean, 0, 0.01 * bound);
  EXPECT_NEAR(found.deviation, bound / std::sqrt(3.0), 0.01 * bound);
  EXPECT_LE(found.largest, bound * (1 + 1e-6));
  EXPECT_GT(found.largest, 0.999 * bound);
}

void expect_normal(const Tensor& weight, double deviation) {
  const Statistics found = statistics(weight);
  EXPECT_NEAR(found.mean, 0, 0.02 * deviation);
  EXPECT_NEAR(found.deviation, deviation, 0.015 * deviation);
  EXPECT_GT(found.largest, 3.5 * deviation) << "a normal distribution has tails";
}

class Init : public ::testing::TestWithParam<DType> {
 protected:
  Tensor weight = Tensor::zeros({out, in, 3, 3}, GetParam());
};
INSTANTIATE_TEST_SUITE_P(EachDType, Init, ::testing::Values(DType::f32, DType::f64));

TEST_P(Init, kaiming_uniform_has_the_bound_of_the_fan_in) {
  init::kaiming_uniform(weight, RandomKey(1));
  expect_uniform(weight, std::sqrt(6.0 / (in * window)));
  init::kaiming_uniform(weight, RandomKey(1), std::sqrt(5.0));
  expect_uniform(weight, 1 / std::sqrt(in * window));
}

TEST_P(Init, kaiming_normal_has_the_deviation_of_the_fan_in) {
  init::kaiming_normal(weight, RandomKey(2));
  expect_normal(weight, std::sqrt(2.0 / (in * window)));
  init::kaiming_normal(weight, RandomKey(2), 0.5);
  expect_normal(weight, std::sqrt(2.0 / 1.25 / (in * window)));
}

TEST_P(Init, xavier_uniform_has_the_bound_of_both_fans) {
  init::xavier_uniform(weight, RandomKey(3));
  expect_uniform(weight, std::sqrt(6.0 / ((in + out) * window)));
  init::xavier_uniform(weight, RandomKey(3), 2);
  expect_uniform(weight, 2 * std::sqrt(6.0 / ((in + out) * window)));
}

TEST_P(Init, xavier_normal_has_the_deviation_of_both_fans) {
  init::xavier_normal(weight, RandomKey(4));
  expect_normal(weight, std::sqrt(2.0 / ((in + out) * window)));
  init::xavier_normal(weight, RandomKey(4), 3);
  expect_normal(weight, 3 * std::sqrt(2.0 / ((in + out) * window)));
}

TEST_P(Init, default_bias_has_the_bound_of_the_fan_in) {
  init::default_bias(weight, RandomKey(5), 25);
  expect_uniform(weight, 0.2);
  init::default_bias(weight, RandomKey(5), 0);
  EXPECT_EQ(statistics(weight).largest, 0);
}

TEST(InitOfAMatrix, takes_the_second_extent_for_the_fan_in) {
  Tensor weight = Tensor::zeros({300, 4}, DType::f64);
  init::kaiming_uniform(weight, RandomKey(1), std::sqrt(5.0));
  const Statistics found = statistics(weight);
  EXPECT_LE(found.largest, 0.5);
  EXPECT_GT(found.largest, 0.49);
}

TEST(InitOfAMatrix, refuses_fewer_than_two_axes_and_integers) {
  for (const auto init :
       {init::kaiming_uniform, init::kaiming_normal, init::xavier_uniform, init::xavier_normal}) {
    Tensor vector = Tensor::zeros({5}), integers = Tensor::zeros({5, 5}, DType::i64);
    EXPECT_TRUE(throws<ShapeError>([&] { init(vector, RandomKey(1), 1.0); }, "two axes", "(5)"));
    EXPECT_THROW(init(integers, RandomKey(1), 1.0), DTypeError);
    Tensor empty = Tensor::zeros({5, 0});
    EXPECT_NO_THROW(init(empty, RandomKey(1), 1.0));
  }
}

}  // namespace init_test
}  // namespace lockstep::nn
