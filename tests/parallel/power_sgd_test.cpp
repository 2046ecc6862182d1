#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
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
namespace power_sgd_test {

using nlohmann::json;
using testing::normal;
using testing::SimulatedNodes;
using testing::throws;

PowerSgd of_rank(std::int64_t rank) { return PowerSgd({.rank = rank, .least_factor = 1}); }

Tensor scaled(const Tensor& tensor, float factor) {
  Tensor result = tensor.clone();
  for (float& x : result.span<float>()) x *= factor;
  return result;
}

// Σ_i scales[i] · u_i · v_iᵀ of random u_i and v_i.
Tensor with_scales(const std::vector<double>& scales, std::uint64_t seed, const Shape& shape) {
  Tensor result = Tensor::zeros(shape);
  const std::int64_t rows = shape[0], columns = shape.size() / rows;
  for (std::size_t i = 0; i < scales.size(); ++i) {
    const Tensor u = normal(seed + 2 * i, {rows}), v = normal(seed + 2 * i + 1, {columns});
    for (std::int64_t j = 0; j < shape.size(); ++j) {
      result.data<float>()[j] += static_cast<float>(scales[i]) * u.data<float>()[j / columns] *
                                 v.data<float>()[j % columns];
    }
  }
  return result;
}

double largest(const Tensor& tensor) {
  double result = 0;
  for (const float x : tensor.span<float>()) {
    result = std::max(result, std::abs(static_cast<double>(x)));
  }
  return result;
}

// The largest difference, as a part of the largest number.
double relative_error(const Tensor& found, const Tensor& expected) {
  Tensor difference = found.clone();
  for (std::int64_t i = 0; i < found.size(); ++i) {
    difference.data<float>()[i] -= expected.data<float>()[i];
  }
  const double result = largest(difference) / largest(expected);
  return std::isnan(result) ? HUGE_VAL : result;
}

bool all_finite(const Tensor& tensor) {
  const std::span<const float> span = tensor.span<float>();
  return std::all_of(span.begin(), span.end(), [](float x) { return std::isfinite(x); });
}

// golden/power_sgd.py
TEST(PowerSgd, does_what_the_formulas_say) {
  std::ifstream file(LOCKSTEP_GOLDEN_DIR "/power_sgd.json");
  ASSERT_TRUE(file) << "golden/power_sgd.json is missing";
  const json golden = json::parse(file);
  const auto tensor = [](const json& values, const Shape& shape) {
    return Tensor::from(values.get<std::vector<float>>(), shape);
  };
  const Shape shape{6, 5}, q_shape{2, 5};
  SimulatedNodes nodes(of_rank(2), shape, 2);
  for (const auto& compressor : nodes.compressors) {
    compressor->restore({{"q", tensor(golden.at("q"), q_shape)}, {"draws", 0}});
  }
  ASSERT_EQ(golden.at("reductions").size(), 3U);
  for (const json& expected : golden.at("reductions")) {
    const json& gradients = expected.at("gradients");
    const Tensor mean =
        nodes.reduce({tensor(gradients[0], shape), tensor(gradients[1], shape)}, {0.25, 0.75});
    EXPECT_LT(relative_error(mean, tensor(expected.at("mean"), shape)), 2e-6);
    for (std::size_t node = 0; node < 2; ++node) {
      const Tensor left = tensor(expected.at("left")[node], shape);
      EXPECT_LT(relative_error(nodes.left[node], left), 2e-6);
    }
    const StateDict state = nodes.compressors[0]->state_dict();
    EXPECT_LT(relative_error(state.at("q").as_tensor(), tensor(expected.at("q"), q_shape)), 2e-6);
    EXPECT_EQ(state.at("draws").as_int(), 0);
  }
}

TEST(PowerSgd, sends_exactly_what_its_rank_suffices_for) {
  for (const Shape& shape : {Shape{40, 30}, Shape{7, 131}, Shape{131, 7}, Shape{16, 8, 3, 3}}) {
    for (const std::vector<double>& scales : {std::vector<double>{1}, {1, 0.5}, {1, 0.1, 0.01}}) {
      const Tensor gradient = with_scales(scales, 1, shape);
      SimulatedNodes nodes(of_rank(static_cast<std::int64_t>(scales.size())), shape, 2);
      const Tensor mean = nodes.reduce({gradient, gradient}, {0.5, 0.5});
      EXPECT_LT(relative_error(mean, gradient), 3e-5) << to_string(shape) << " " << scales.size();
      EXPECT_LT(largest(nodes.left[1]), 3e-5 * largest(gradient)) << to_string(shape);
    }
  }
}

// M·Q is then of columns that are nearly parallel, whatever Q is.
TEST(PowerSgd, sends_exactly_what_is_of_very_different_sizes) {
  const Tensor gradient = with_scales({1, 1e-3, 1e-4}, 5, {60, 50});
  SimulatedNodes nodes(of_rank(3), {60, 50}, 1);
  EXPECT_LT(relative_error(nodes.reduce({gradient}, {1}), gradient), 2e-6);
}

TEST(PowerSgd, finds_the_largest_singular_vectors_in_a_few_reductions) {
  const Tensor gradient = with_scales({1, 0.7, 0.02, 0.02, 0.01}, 9, {50, 40});
  SimulatedNodes nodes(of_rank(2), {50, 40}, 1);
  Tensor mean;
  for (int i = 0; i < 4; ++i) {
    nodes.left[0].fill(0);
    mean = nodes.reduce({gradient}, {1});
  }
  EXPECT_LT(relative_error(mean, gradient), 0.05);
  EXPECT_GT(relative_error(mean, gradient), 0.002);  // the others are not sent
}

TEST(PowerSgd, sends_a_matrix_of_lower_rank_than_its_own) {
  SimulatedNodes nodes(of_rank(4), {30, 20}, 1);
  for (std::uint64_t i = 0; i < 5; ++i) {
    const Tensor gradient = with_scales({1}, 2 * i, {30, 20});
    EXPECT_LT(relative_error(nodes.reduce({gradient}, {1}), gradient), 5e-6);
  }
  // What is drawn for the three more columns says how far rounding is magnified.
  const Tensor gradient = with_scales({1, 1, 1, 1}, 30, {30, 20});
  EXPECT_LT(relative_error(nodes.reduce({gradient}, {1}), gradient), 1e-4);
}

TEST(PowerSgd, goes_on_after_gradients_of_zeros) {
  const Tensor zeros = Tensor::zeros({30, 20}), gradient = with_scales({1, 1}, 1, {30, 20});
  SimulatedNodes nodes(of_rank(2), {30, 20}, 2);
  for (std::int64_t i = 1; i <= 3; ++i) {
    EXPECT_EQ(largest(nodes.reduce({zeros, zeros}, {0.5, 0.5})), 0);
    EXPECT_EQ(nodes.compressors[0]->state_dict().at("draws").as_int(), 2 * i);
  }
  EXPECT_LT(relative_error(nodes.reduce({gradient, gradient}, {0.5, 0.5}), gradient), 3e-6);
}

// One nonzero row: the second column of M·Q depends on the first one exactly.
TEST(PowerSgd, draws_columns_anew_that_find_nothing_to_send) {
  Tensor row = Tensor::zeros({30, 20});
  row.rows(4, 5).fill(1);
  SimulatedNodes nodes(of_rank(2), {30, 20}, 1);
  const auto second = [&] {
    return nodes.compressors[0]->state_dict().at("q").as_tensor().rows(1, 2).clone();
  };
  Tensor before = second();
  for (std::int64_t i = 1; i <= 3; ++i) {
    EXPECT_LT(relative_error(nodes.reduce({row}, {1}), row), 1e-6);
    EXPECT_EQ(nodes.compressors[0]->state_dict().at("draws").as_int(), i);
    EXPECT_GT(relative_error(second(), before), 0.1);
    before = second();
  }
}

// As above, to within rounding. A column that stays within the rows of the first matrix would not see
// what the second one has beside that.
TEST(PowerSgd, finds_at_once_what_was_not_there_before) {
  Tensor rank_1 = with_scales({1}, 1, {40, 30}), rank_2 = with_scales({1}, 3, {40, 30});
  for (std::int64_t i = 0; i < rank_1.size(); ++i) {
    (i % 30 < 15 ? rank_2 : rank_1).data<float>()[i] = 0;
    rank_2.data<float>()[i] += rank_1.data<float>()[i];
  }
  SimulatedNodes nodes(of_rank(2), {40, 30}, 1);
  for (int i = 0; i < 20; ++i) {
    nodes.left[0].fill(0);
    EXPECT_LT(relative_error(nodes.reduce({rank_1}, {1}), rank_1), 1e-6);
  }
  nodes.left[0].fill(0);
  EXPECT_LT(relative_error(nodes.reduce({rank_2}, {1}), rank_2), 1e-5);
}

TEST(PowerSgd, takes_gradients_of_any_size) {
  const Tensor gradient = with_scales({1, 0.5}, 1, {30, 20});
  for (const float size : {1e-30F, 1e-20F, 1e20F, 1e30F}) {
    SimulatedNodes nodes(of_rank(2), {30, 20}, 2);
    const Tensor sized = scaled(gradient, size);
    for (int i = 0; i < 3; ++i) {
      EXPECT_LT(relative_error(nodes.reduce({sized, sized}, {0.5, 0.5}), sized), 5e-6) << size;
    }
  }
}

TEST(PowerSgd, shows_what_has_overflowed) {
  SimulatedNodes nodes(of_rank(2), {30, 20}, 2);
  const Tensor large = Tensor::full({30, 20}, 3e38);
  EXPECT_FALSE(all_finite(nodes.reduce({large, large}, {0.5, 0.5})));
}

TEST(PowerSgd, begins_with_a_q_of_its_seed_and_name) {
  const Shape shape{30, 20};
  const auto first_q = [&](std::uint64_t seed, const char* name) {
    const auto compressor = PowerSgd({.seed = seed}).compressor(name, shape);
    return compressor->state_dict().at("q").as_tensor();
  };
  EXPECT_TRUE(bit_equal(first_q(3, "a"), first_q(3, "a")));
  EXPECT_FALSE(bit_equal(first_q(3, "a"), first_q(4, "a")));
  EXPECT_FALSE(bit_equal(first_q(3, "a"), first_q(3, "b")));
  Tensor expected = Tensor::empty({4, 20});
  fill_normal(expected, RandomKey(3).fold("a"), 0, 1);
  EXPECT_TRUE(bit_equal(first_q(3, "a"), expected));
}

TEST(PowerSgd, messages_are_p_and_q) {
  const auto bytes = [](std::int64_t rank, const Shape& shape) {
    return of_rank(rank).compressor("weight", shape)->message_bytes();
  };
  using Sizes = std::vector<std::size_t>;
  EXPECT_EQ(bytes(3, {40, 30}), (Sizes{40 * 3 * 4, 30 * 3 * 4}));
  EXPECT_EQ(bytes(2, {64, 3, 7, 7}), (Sizes{64 * 2 * 4, 147 * 2 * 4}));
}

TEST(PowerSgd, leaves_gradients_as_they_are_where_p_and_q_are_not_much_smaller) {
  const PowerSgd method({.rank = 4, .least_factor = 2});
  EXPECT_EQ(method.compressor("weight", {100'000}), nullptr);
  EXPECT_EQ(method.compressor("weight", {}), nullptr);
  EXPECT_EQ(method.compressor("weight", {0, 5}), nullptr);
  EXPECT_EQ(method.compressor("weight", {5, 0}), nullptr);
  EXPECT_EQ(method.compressor("weight", {1, 100'000}), nullptr);
  EXPECT_EQ(method.compressor("weight", {100'000, 1}), nullptr);
  EXPECT_NE(method.compressor("weight", {16, 16}), nullptr);  // 256 = 2 · (16 + 16) · 4
  EXPECT_EQ(method.compressor("weight", {16, 15}), nullptr);
  EXPECT_NE(method.compressor("weight", {16, 4, 2, 2}), nullptr);
  for (const std::int64_t rank : {2, 30, 1'000'000'000}) {
    EXPECT_EQ(of_rank(rank).compressor("weight", {2, 1000}), nullptr) << rank;
  }
}

TEST(PowerSgd, refuses_options_out_of_range) {
  EXPECT_TRUE(
      throws<OptionError>([] { PowerSgd({.rank = 0}); }, "PowerSGD: expected rank >= 1, found 0"));
  for (const double factor : {0.9, -2.0, HUGE_VAL, std::nan("")}) {
    EXPECT_TRUE(throws<OptionError>([&] { PowerSgd({.least_factor = factor}); },
                                    "PowerSGD: expected a finite least_factor >= 1, found "));
  }
}

TEST(PowerSgd, describes_all_of_its_options) {
  EXPECT_EQ(PowerSgd().describe(),
            "PowerSGD of rank 4, from 2 times fewer numbers, seed 0, after 0 reductions");
  const std::set<std::string> all{PowerSgd().describe(), PowerSgd({.rank = 2}).describe(),
                                  PowerSgd({.least_factor = 2.5}).describe(),
                                  PowerSgd({.first_reduction = 9}).describe(),
                                  PowerSgd({.seed = 1}).describe()};
  EXPECT_EQ(all.size(), 5U);
  EXPECT_EQ(PowerSgd({.first_reduction = 9}).first_reduction(), 9U);
}

TEST(PowerSgd, refuses_a_state_that_does_not_fit_and_stays_as_it_was) {
  const auto compressor = of_rank(2).compressor("head.weight", {30, 20});
  const StateDict before = compressor->state_dict().clone();
  const auto refused = [&]<class E>(const E*, const StateDict& source, const auto&... parts) {
    EXPECT_TRUE(throws<E>([&] { compressor->check_restore(source); }, parts...));
    EXPECT_TRUE(throws<E>([&] { compressor->restore(source); }, parts...));
    EXPECT_TRUE(bit_equal(compressor->state_dict(), before));
  };
  const Tensor q = Tensor::zeros({2, 20});
  const NameError* name = nullptr;
  const ShapeError* shape = nullptr;
  const DTypeError* dtype = nullptr;
  const StateError* state = nullptr;
  refused(name, {{"draws", 0}}, "'q'");
  refused(name, {{"q", q}}, "'draws'");
  refused(shape, {{"q", Tensor::zeros({3, 20})}, {"draws", 0}},
          "Q of the gradient of 'head.weight'", "expected shape (2, 20), found (3, 20)");
  refused(dtype, {{"q", q.to(DType::f64)}, {"draws", 0}}, "'head.weight'", "f32", "f64");
  refused(state, {{"q", 1.0}, {"draws", 0}}, "a tensor");
  refused(state, {{"q", q}, {"draws", 0.5}}, "an integer");
  refused(state, {{"q", q}, {"draws", -1}}, "'head.weight': expected draws >= 0, found -1");
  refused(state, {{"q", Tensor::full({2, 20}, HUGE_VAL)}, {"draws", 0}}, "'head.weight'", "finite");
}

TEST(PowerSgd, has_memory_of_its_own_after_a_restore) {
  const auto compressor = of_rank(2).compressor("weight", {30, 20});
  StateDict source{{"q", normal(1, {2, 20})}, {"draws", 5}};
  compressor->restore(source);
  EXPECT_TRUE(bit_equal(compressor->state_dict(), source));
  source["q"].as_tensor().fill(0);
  EXPECT_FALSE(bit_equal(compressor->state_dict(), source));
}

}  // namespace power_sgd_test
}  // namespace lockstep
