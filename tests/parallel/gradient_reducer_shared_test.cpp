// Gradients that ranks read in one memory, buckets, and what a caller computes without a backward.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "comm/placements.hpp"
#include "lockstep/autograd/operations.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/parallel/gradient_reducer.hpp"
#include "lockstep/tensor/random.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace gradient_reducer_shared_test {

using testing::Arrangement;
using testing::arrangements;
using testing::throws;
using testing::world;

// A random list of parameters, the same on all ranks.
std::vector<NamedParameter> draw_parameters(RandomKey key, std::size_t count) {
  std::vector<NamedParameter> parameters;
  for (std::size_t i = 0; i < count; ++i) {
    const auto size = static_cast<std::int64_t>(key.below(i % 7 == 0 ? 40000 : 90, 2 * i));
    const DType dtype = key.below(3, 2 * i + 1) == 0 ? DType::f64 : DType::f32;
    parameters.emplace_back("p" + std::to_string(i), Parameter(Tensor::zeros({size}, dtype)));
  }
  return parameters;
}

Tensor drawn(RandomKey key, int rank, std::size_t i, const Parameter& parameter) {
  Tensor gradient = Tensor::empty(parameter.shape(), parameter.dtype());
  fill_uniform(gradient, key.fold(static_cast<std::uint64_t>(rank)).fold(i), -1, 1);
  return gradient;
}

// A backward that gives the parameters of `order` these gradients, in that order.
void backward(const std::vector<NamedParameter>& parameters, const std::vector<std::size_t>& order,
              RandomKey key) {
  std::optional<Variable> loss;
  // What was added last is differentiated first.
  for (auto i = order.rbegin(); i != order.rend(); ++i) {
    const Parameter& parameter = parameters[*i].parameter;
    const Variable term = autograd::record(
        Tensor::full({}, 0, DType::f64), {parameter},
        [gradient = drawn(key, world().rank(), *i, parameter)](
            const Tensor&, std::span<autograd::GradientSlot> slots) { slots[0].pass(gradient); });
    loss = loss ? *loss + term : term;
  }
  if (loss) loss->backward();
}

template <class T>
void expect_mean(const Arrangement& arrangement, RandomKey key, std::size_t i,
                 const NamedParameter& named, const std::vector<double>& weights) {
  std::vector<std::vector<T>> sums;
  for (const std::vector<int>& node : arrangement.nodes) {
    for (std::size_t r = 0; r < node.size(); ++r) {
      const Tensor one = drawn(key, node[r], i, named.parameter);
      const auto weight = static_cast<T>(weights[static_cast<std::size_t>(node[r])]);
      if (r == 0) sums.emplace_back(static_cast<std::size_t>(one.size()));
      for (std::size_t k = 0; k < sums.back().size(); ++k) {
        const T value = weight * one.data<T>()[k];
        sums.back()[k] = r == 0 ? value : sums.back()[k] + value;
      }
    }
  }
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  const Tensor& found = named.parameter.grad();
  std::size_t wrong = 0;
  for (std::size_t k = 0; k < sums[0].size(); ++k) {
    T expected = sums[0][k];
    for (std::size_t n = 1; n < sums.size(); ++n) expected += sums[n][k];
    expected /= static_cast<T>(total);
    wrong += found.data<T>()[k] != expected;
  }
  EXPECT_EQ(wrong, 0U) << arrangement.name << ": " << named.name;
}

void expect_means(const Arrangement& arrangement, RandomKey key,
                  const std::vector<NamedParameter>& parameters,
                  const std::vector<std::size_t>& reached, const std::vector<double>& weights) {
  for (const std::size_t i : reached) {
    ASSERT_TRUE(parameters[i].parameter.has_grad());
    if (parameters[i].parameter.dtype() == DType::f32) {
      expect_mean<float>(arrangement, key, i, parameters[i], weights);
    } else {
      expect_mean<double>(arrangement, key, i, parameters[i], weights);
    }
  }
}

std::vector<std::size_t> shuffled(RandomKey key, std::size_t count) {
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (std::size_t i = count; i > 1; --i) std::swap(order[i - 1], order[key.below(i, i)]);
  return order;
}

std::vector<double> weights_of(std::uint64_t round) {
  std::vector<double> weights(static_cast<std::size_t>(world().size()), 1.0);
  if (round % 2 == 1 && world().size() > 1) {
    for (std::size_t r = 0; r < weights.size(); ++r) weights[r] = static_cast<double>(3 * r + 2);
  }
  return weights;
}

TEST(GradientReducerShared, gives_the_mean_in_the_documented_order_whatever_the_buckets) {
  std::uint64_t round = 0;
  for (const Arrangement& arrangement : arrangements()) {
    const Communicator ranks(world().handle(), arrangement.options);
    for (const std::size_t bucket_bytes : {1U, 300U, 20000U, 1U << 30}) {
      const RandomKey key(++round);
      const std::vector<NamedParameter> parameters = draw_parameters(key, 1 + key.below(20, 1000));
      GradientReducer reducer(parameters, ranks, {.bucket_bytes = bucket_bytes});
      EXPECT_EQ(reducer.shared(), arrangement.options.share_memory);
      for (std::uint64_t step = 0; step < 3; ++step) {
        // The order of the first step is not that of the others, and differs from rank to rank.
        const RandomKey own = key.fold(step).fold(static_cast<std::uint64_t>(world().rank()));
        const auto order = shuffled(step < 2 ? own : key, parameters.size());
        for (const auto& [name, parameter] : parameters) Parameter(parameter).zero_grad();
        const std::vector<double> weights = weights_of(step);
        reducer.set_weight(weights[static_cast<std::size_t>(world().rank())]);
        backward(parameters, order, key.fold(step));
        expect_means(arrangement, key.fold(step), parameters, order, weights);
      }
    }
  }
}

TEST(GradientReducerShared, takes_gradients_that_a_caller_has_computed) {
  std::uint64_t round = 100;
  for (const Arrangement& arrangement : arrangements()) {
    const Communicator ranks(world().handle(), arrangement.options);
    const RandomKey key(++round);
    std::vector<double> field(500, 1.0);
    std::vector<NamedParameter> parameters = draw_parameters(key, 9);
    parameters.emplace_back("field", Parameter(Tensor::borrow(field)));
    GradientReducer reducer(parameters, ranks, {.bucket_bytes = 200});
    for (std::uint64_t step = 0; step < 4; ++step) {
      const std::vector<double> weights = weights_of(step);
      reducer.set_weight(weights[static_cast<std::size_t>(world().rank())]);
      const auto order = shuffled(key.fold(step), parameters.size());
      for (const std::size_t i : order) {
        Parameter parameter = parameters[i].parameter;
        parameter.mutable_grad().copy_from(drawn(key.fold(step), world().rank(), i, parameter));
        reducer.mark_ready(parameter);
      }
      reducer.finish();
      expect_means(arrangement, key.fold(step), parameters, order, weights);
    }
    EXPECT_EQ(field, std::vector<double>(500, 1.0));
  }
}

TEST(GradientReducerShared, what_some_ranks_mark_is_averaged_with_zeros_and_the_rest_stays) {
  for (const Arrangement& arrangement : arrangements()) {
    const Communicator ranks(world().handle(), arrangement.options);
    Parameter all("all", Tensor::zeros({3})), one("one", Tensor::zeros({40}, DType::f64));
    Parameter none("none", Tensor::zeros({5}));
    GradientReducer reducer({all, one, none}, ranks, {.bucket_bytes = 1});
    none.mutable_grad().fill(9);
    for (int step = 0; step < 3; ++step) {
      all.mutable_grad().fill(world().rank());
      reducer.mark_ready(all);
      if (world().rank() == 0) {
        one.mutable_grad().fill(6);
        reducer.mark_ready(one);
      }
      reducer.finish();
      EXPECT_EQ(all.grad().data<float>()[2], static_cast<float>(world().size() - 1) / 2);
      EXPECT_EQ(one.grad().data<double>()[39], 6.0 / world().size());
      EXPECT_TRUE(bit_equal(none.grad(), Tensor::full({5}, 9)));
    }
  }
}

TEST(GradientReducerShared, refuses_to_take_a_strangers_gradient_or_one_twice) {
  Parameter a("a", Tensor::zeros({3})), stranger("b", Tensor::zeros({3}));
  GradientReducer reducer({a}, world());
  EXPECT_TRUE(throws<NameError>([&] { reducer.mark_ready(stranger); }, "not one of this reducer"));
  EXPECT_TRUE(throws<NameError>([&] { reducer.mark_ready({}); }, "not one of this reducer"));
  a.mutable_grad().fill(2);
  reducer.mark_ready(a);
  EXPECT_TRUE(throws<StateError>([&] { reducer.mark_ready(a); }, "marked ready before"));
  reducer.finish();
  EXPECT_TRUE(bit_equal(a.grad(), Tensor::full({3}, 2)));
  EXPECT_TRUE(throws<OptionError>(
      [&] { const GradientReducer other({stranger}, world(), {.bucket_bytes = 0}); },
      "bucket_bytes"));
}

TEST(GradientReducerShared, a_gradient_is_read_only_and_a_mutable_one_is_this_ranks_own) {
  Parameter a("a", Tensor::zeros({3}));
  const GradientReducer reducer({a}, world());
  sum(a * (world().rank() + 1.0)).backward();
  const float mean = static_cast<float>(world().size() + 1) / 2;
  Tensor view = a.grad();
  EXPECT_TRUE(throws<StateError>([&] { view.fill(0); }, "read-only", "mutable_grad"));
  EXPECT_TRUE(throws<StateError>([&] { view.data<float>()[0] = 0; }, "read-only"));
  EXPECT_TRUE(throws<StateError>([&] { view.rows(0, 1).raw(); }, "read-only"));
  EXPECT_TRUE(throws<StateError>([&] { view.copy_from(Tensor::zeros({3})); }, "read-only"));
  view.clone().fill(0);
  EXPECT_TRUE(bit_equal(a.grad(), Tensor::full({3}, mean)));
  if (world().rank() == 0) {
    a.mutable_grad().fill(100);
    EXPECT_TRUE(bit_equal(a.grad(), Tensor::full({3}, 100)));
  }
  world().barrier();
  if (world().rank() != 0) {
    EXPECT_TRUE(bit_equal(a.grad(), Tensor::full({3}, mean)));
  }
}

TEST(GradientReducerShared, a_backward_that_throws_on_one_rank_is_an_error_on_all) {
  for (const Arrangement& arrangement : arrangements()) {
    const Communicator ranks(world().handle(), arrangement.options);
    for (const int culprit : {0, world().size() - 1}) {
      Parameter first("first", Tensor::full({40}, 1)), second("second", Tensor::full({40}, 1));
      const GradientReducer reducer({second, first}, ranks, {.bucket_bytes = 1});
      (sum(first * 3) + sum(second * 4)).backward();
      const auto failing = [&](const Variable& x) {
        return autograd::record(
            x.value(), {x}, [&](const Tensor& gradient, std::span<autograd::GradientSlot> slots) {
              if (world().rank() == culprit) {
                throw std::runtime_error("no derivative");
              }
              slots[0].pass(gradient);
            });
      };
      // One bucket is on its way by then.
      const Variable loss = sum(failing(second)) + sum(first * 5);
      if (world().rank() == culprit) {
        EXPECT_TRUE(throws<std::runtime_error>([&] { loss.backward(); }, "no derivative"));
      } else {
        EXPECT_TRUE(throws<Error>([&] { loss.backward(); },
                                  "no derivative (rank " + std::to_string(culprit) + ")"));
      }
      EXPECT_TRUE(bit_equal(first.grad(), Tensor::full({40}, 3)));
      EXPECT_TRUE(bit_equal(second.grad(), Tensor::full({40}, 4)));
      // And the next one is as if nothing had happened.
      first.zero_grad();
      second.zero_grad();
      (sum(first * 6) + sum(second * 7)).backward();
      EXPECT_TRUE(bit_equal(first.grad(), Tensor::full({40}, 6)));
      EXPECT_TRUE(bit_equal(second.grad(), Tensor::full({40}, 7)));
    }
  }
}

TEST(GradientReducerShared, that_fails_leaves_the_others_of_a_backward_as_they_were) {
  Parameter a("a", Tensor::zeros({3})), b("b", Tensor::zeros({3}));
  GradientReducer of_a({a}, world()), of_b({b}, world());
  const auto backward = [&](double factor) { (sum(a * factor) + sum(b * factor)).backward(); };
  backward(1);
  for (GradientReducer* failing : {&of_a, &of_b}) {
    a.zero_grad();
    b.zero_grad();
    failing->set_weight(0);
    EXPECT_TRUE(throws<OptionError>([&] { backward(2); }, "weights of all ranks are zero"));
    failing->set_weight(1);
    failing->discard();
    a.zero_grad();
    b.zero_grad();
    backward(3);
    EXPECT_TRUE(bit_equal(a.grad(), Tensor::full({3}, 3)));
    EXPECT_TRUE(bit_equal(b.grad(), Tensor::full({3}, 3)));
  }
}

TEST(GradientReducerShared, leaves_its_communicator_to_the_caller_meanwhile) {
  for (const Arrangement& arrangement : arrangements()) {
    const Communicator ranks(world().handle(), arrangement.options);
    // The first is longer than what can be under way.
    Parameter a("a", Tensor::zeros({700000})), b("b", Tensor::zeros({3}));
    GradientReducer reducer({b, a}, ranks, {.bucket_bytes = 1});
    a.mutable_grad().fill(world().rank());
    reducer.mark_ready(a);
    EXPECT_EQ(reducer.communicator().all_reduce(1.0), world().size());
    b.mutable_grad().fill(1);
    reducer.mark_ready(b);
    reducer.finish();
    EXPECT_EQ(a.grad().data<float>()[699999], static_cast<float>(world().size() - 1) / 2);
    EXPECT_EQ(b.grad().data<float>()[2], 1);
  }
}

TEST(GradientReducerShared, buckets_follow_the_order_of_rank_0_in_the_first_round) {
  Parameter a("a", Tensor::zeros({3})), b("b", Tensor::zeros({3}));
  GradientReducer reducer({a, b}, world(), {.bucket_bytes = 1});
  const auto mark = [&](Parameter& parameter) {
    parameter.mutable_grad().fill(1);
    reducer.mark_ready(parameter);
  };
  const bool first = world().rank() == 0;
  mark(first ? a : b);
  mark(first ? b : a);
  reducer.finish();
  mark(b);  // waits for a
  reducer.discard();
  mark(a);
  EXPECT_TRUE(throws<StateError>([&] { reducer.set_weight(2); }, "under way"));
  mark(b);
  reducer.finish();
}

TEST(GradientReducerShared, refuses_a_backward_to_what_was_marked_ready) {
  Parameter a("a", Tensor::zeros({3})), b("b", Tensor::zeros({3}));
  GradientReducer reducer({a, b}, world());
  a.mutable_grad().fill(1);
  reducer.mark_ready(a);
  EXPECT_TRUE(throws<StateError>([&] { sum(a).backward(); }, "was marked ready"));
  sum(a + b).backward();
  EXPECT_TRUE(bit_equal(a.grad(), Tensor::full({3}, 1)));
}

TEST(GradientReducerShared, keeps_what_a_round_under_way_has_begun_with) {
  Parameter a("a", Tensor::zeros({3})), b("b", Tensor::zeros({3}));
  GradientReducer reducer({b, a}, world(), {.bucket_bytes = 1});
  a.mutable_grad().fill(1);
  b.mutable_grad().fill(2);
  reducer.mark_ready(b);  // waits for a
  reducer.discard();
  EXPECT_FALSE(b.has_grad());
  b.mutable_grad().fill(4);
  reducer.mark_ready(a);
  EXPECT_TRUE(throws<StateError>([&] { reducer.set_weight(2); }, "under way"));
  EXPECT_TRUE(throws<StateError>([&] { reducer.discard(); }, "under way"));
  reducer.mark_ready(b);
  reducer.finish();
  EXPECT_TRUE(bit_equal(a.grad(), Tensor::full({3}, 1)));
  EXPECT_TRUE(bit_equal(b.grad(), Tensor::full({3}, 4)));
}

TEST(GradientReducerShared, refuses_options_that_differ) {
  if (world().size() == 1) return;
  const Parameter a("a", Tensor::zeros({3}));
  const std::size_t bytes = world().rank() == 1 ? 100 : 200;
  EXPECT_TRUE(throws<OptionError>(
      [&] { const GradientReducer reducer({a}, world(), {.bucket_bytes = bytes}); },
      "bucket_bytes = 200", "found bucket_bytes = 100", "(rank 1)"));
  const GradientReducer reducer({a}, world());
}

TEST(GradientReducerShared, is_destroyed_in_any_order_after_any_number_of_steps) {
  for (const Arrangement& arrangement : arrangements()) {
    const Communicator ranks(world().handle(), arrangement.options);
    Parameter a("a", Tensor::zeros({300})), b("b", Tensor::zeros({3}));
    auto of_a = std::make_unique<GradientReducer>(std::vector<NamedParameter>{a}, ranks);
    auto of_b = std::make_unique<GradientReducer>(std::vector<NamedParameter>{b}, ranks);
    (sum(a) + sum(b)).backward();
    const Tensor kept = b.grad();
    if (world().rank() % 2 == 0) {
      of_a.reset();
      of_b.reset();
    } else {
      of_b.reset();
      of_a.reset();
    }
    EXPECT_EQ(a.grad().data<float>()[299], 1);
    EXPECT_EQ(kept.data<float>()[2], 1);  // the memory is still there
    world().barrier();
  }
}

}  // namespace gradient_reducer_shared_test
}  // namespace lockstep
