#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/parallel/compression.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "parallel/simulated_nodes.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace top_k_test {

using testing::normal;
using testing::SimulatedNodes;
using testing::throws;

Tensor numbers(const std::vector<float>& values) {
  return Tensor::from(values, {static_cast<std::int64_t>(values.size())});
}

std::vector<float> values(const Tensor& tensor) {
  const std::span<const float> span = tensor.span<float>();
  return {span.begin(), span.end()};
}

// What one node sends of a gradient, and what it keeps.
struct Split {
  std::vector<float> sent, kept;
};

Split split(const std::vector<float>& gradient, double fraction) {
  const Tensor tensor = numbers(gradient);
  SimulatedNodes node(TopK({.fraction = fraction, .least_size = 1}), tensor.shape(), 1);
  Split result;
  result.sent = values(node.reduce({tensor}, {1}));
  result.kept = values(node.left[0]);
  return result;
}

using Numbers = std::vector<float>;

TEST(TopK, sends_the_largest_magnitudes_and_keeps_the_others) {
  const auto [sent, kept] = split({1, -5, 3, 0.5, -4, 2, 0, -1}, 0.375);
  EXPECT_EQ(sent, (Numbers{0, -5, 3, 0, -4, 0, 0, 0}));
  EXPECT_EQ(kept, (Numbers{1, 0, 0, 0.5, 0, 2, 0, -1}));
}

TEST(TopK, averages_what_the_nodes_have_sent_with_their_shares) {
  SimulatedNodes nodes(TopK({.fraction = 0.5, .least_size = 1}), {4}, 2);
  const Tensor mean = nodes.reduce({numbers({8, -4, 2, 1}), numbers({1, 2, -3, -8})}, {0.25, 0.75});
  EXPECT_EQ(values(mean), (Numbers{2, -1, -2.25, -6}));
  EXPECT_EQ(values(nodes.left[0]), (Numbers{0, 0, 2, 1}));
  EXPECT_EQ(values(nodes.left[1]), (Numbers{1, 2, 0, 0}));
}

TEST(TopK, sums_in_the_order_of_nodes) {
  SimulatedNodes nodes(TopK({.least_size = 1}), {1}, 3);
  const Tensor mean = nodes.reduce({numbers({3e8F}), numbers({-3e8F}), numbers({1})}, {1, 1, 1});
  EXPECT_EQ(values(mean), Numbers{1});  // 1 - 3e8 + 3e8 is 0 in single precision
}

TEST(TopK, sends_later_what_it_has_kept) {
  SimulatedNodes node(TopK({.fraction = 0.25, .least_size = 1}), {4}, 1);
  const Tensor gradient = numbers({4, 1, 3, 0});
  EXPECT_EQ(values(node.reduce({gradient}, {1})), (Numbers{4, 0, 0, 0}));
  EXPECT_EQ(values(node.reduce({gradient}, {1})), (Numbers{0, 0, 6, 0}));
  EXPECT_EQ(values(node.reduce({gradient}, {1})), (Numbers{8, 0, 0, 0}));
  EXPECT_EQ(values(node.left[0]), (Numbers{0, 3, 3, 0}));
}

// Against a stable sort, of numbers of which many are equal or differ in few bits only.
TEST(TopK, selects_what_a_sort_would) {
  const RandomKey root(1);
  for (std::uint64_t trial = 0; trial < 300; ++trial) {
    const RandomKey key = root.fold(trial);
    const auto size = static_cast<std::int64_t>(1 + key.below(trial % 10 == 0 ? 5000 : 60, 0));
    const double fraction = 0.01 + 0.49 * key.uniform(1);
    const Tensor drawn = normal(trial, {size});
    Numbers gradient = values(drawn);
    for (float& x : gradient) {
      if (trial % 3 == 0) x = std::round(x * 4) / 4;
      if (trial % 3 == 1) x = std::copysign(1 + std::abs(x) * 1e-6F, x);
    }
    std::vector<std::size_t> order(gradient.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      return std::abs(gradient[a]) > std::abs(gradient[b]);
    });
    const double rounded = std::round(fraction * static_cast<double>(size));
    order.resize(std::max(std::size_t{1}, static_cast<std::size_t>(rounded)));
    Numbers expected_sent(gradient.size()), expected_kept = gradient;
    for (const std::size_t i : order) {
      std::swap(expected_sent[i], expected_kept[i]);
    }
    const auto [sent, kept] = split(gradient, fraction);
    ASSERT_EQ(sent, expected_sent) << "size " << size << ", fraction " << fraction;
    ASSERT_EQ(kept, expected_kept) << "size " << size << ", fraction " << fraction;
  }
}

TEST(TopK, of_equal_magnitudes_sends_the_first) {
  const auto [sent, kept] = split({1, -2, 2, -2, 2, 1}, 0.5);
  EXPECT_EQ(sent, (Numbers{0, -2, 2, -2, 0, 0}));
  EXPECT_EQ(kept, (Numbers{1, 0, 0, 0, 2, 1}));
}

TEST(TopK, sends_zeros_where_there_is_nothing_else) {
  const auto [sent, kept] = split({0, -0.0F, 0, 1e-45F}, 0.5);
  EXPECT_EQ(sent, (Numbers{0, 0, 0, 1e-45F}));
  EXPECT_EQ(kept, (Numbers{0, 0, 0, 0}));
}

TEST(TopK, messages_are_of_the_fraction_and_of_one_number_at_least) {
  const auto bytes = [](double fraction, const Shape& shape) {
    const TopK method({.fraction = fraction, .least_size = 1});
    return method.compressor("weight", shape)->message_bytes();
  };
  using Sizes = std::vector<std::size_t>;
  EXPECT_EQ(bytes(0.01, {1}), Sizes{8});
  EXPECT_EQ(bytes(0.01, {30, 5}), Sizes{2 * 8});  // 1.5 is rounded
  EXPECT_EQ(bytes(0.5, {3}), Sizes{2 * 8});
  EXPECT_EQ(bytes(0.001, {64, 3, 7, 7}), Sizes{9 * 8});
  EXPECT_EQ(bytes(0.25, {1000, 1000}), Sizes{250'000 * 8});
}

TEST(TopK, leaves_gradients_as_they_are_that_are_small_or_too_large_for_its_indices) {
  const TopK method;
  EXPECT_EQ(method.compressor("weight", {1023}), nullptr);
  EXPECT_NE(method.compressor("weight", {1024}), nullptr);
  EXPECT_NE(method.compressor("weight", {32, 32}), nullptr);
  EXPECT_EQ(method.compressor("weight", {0, 5}), nullptr);
  EXPECT_NE(method.compressor("weight", {(std::int64_t{1} << 32) - 1}), nullptr);
  EXPECT_EQ(method.compressor("weight", {std::int64_t{1} << 32}), nullptr);
}

TEST(TopK, refuses_options_out_of_range) {
  for (const double fraction : {0.0, -0.1, 0.51, std::nan("")}) {
    EXPECT_TRUE(throws<OptionError>([&] { TopK({.fraction = fraction}); },
                                    "top-k: expected 0 < fraction <= 0.5, found "));
  }
  EXPECT_TRUE(throws<OptionError>([] { TopK({.least_size = 0}); },
                                  "top-k: expected least_size >= 1, found 0"));
}

TEST(TopK, describes_all_of_its_options) {
  EXPECT_EQ(TopK().describe(), "top-k of 0.05, from 1024 numbers, after 0 reductions");
  const std::set<std::string> all{TopK().describe(), TopK({.fraction = 0.02}).describe(),
                                  TopK({.least_size = 1}).describe(),
                                  TopK({.first_reduction = 9}).describe()};
  EXPECT_EQ(all.size(), 4U);
  EXPECT_EQ(TopK({.first_reduction = 9}).first_reduction(), 9U);
}

}  // namespace top_k_test
}  // namespace lockstep
