#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/placements.hpp"
#include "lockstep/autograd/operations.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/core/log.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/combined_optimizer.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/parallel/gradient_reducer.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace gradient_semantics_test {

using testing::arrangements;
using testing::throws;
using testing::world;

/// Parameters whose gradients are constants: that of parameter i on rank r is (i + 1) · (r + 1).
class GradientSemantics : public ::testing::Test {
 protected:
  static double own() { return world().rank() + 1.0; }
  static int last() { return world().size() - 1; }

  std::vector<NamedParameter> all() const { return {a, b, c}; }

  // For each parameter that is wanted here.
  void backward(bool with_a, bool with_b, bool with_c) const {
    std::optional<Variable> total;
    const auto add = [&](const Parameter& parameter, double factor) {
      const Variable term = sum(parameter * (factor * own()));
      total = total ? *total + term : term;
    };
    if (with_a) add(a, 1);
    if (with_b) add(b, 2);
    if (with_c) add(c, 3);
    total->backward();
  }
  void backward() const { backward(true, true, true); }
  void zero_grad() {
    for (Parameter* parameter : {&a, &b, &c}) parameter->zero_grad();
  }

  static ::testing::AssertionResult is(const Parameter& parameter, double expected) {
    if (!parameter.has_grad()) return ::testing::AssertionFailure() << "has no gradient";
    for (const float number : parameter.grad().span<float>()) {
      if (std::abs(number - expected) <= 1e-6 * std::abs(expected)) continue;
      return ::testing::AssertionFailure() << "is " << number << ", and not " << expected;
    }
    return ::testing::AssertionSuccess();
  }
  // Σ (r + 1) over some ranks
  static double sum_over(const std::vector<int>& ranks) {
    double sum = 0;
    for (const int rank : ranks) sum += rank + 1;
    return sum;
  }
  static std::vector<int> ranks(int begin, int end) {
    std::vector<int> list;
    for (int rank = begin; rank < end; ++rank) list.push_back(rank);
    return list;
  }
  static double mean_over(const std::vector<int>& list) {
    return sum_over(list) / static_cast<double>(list.size());
  }
  static std::vector<int> every() { return ranks(0, world().size()); }

  Parameter a{"a", Tensor::zeros({3})}, b{"b", Tensor::zeros({40})}, c{"c", Tensor::zeros({5})};
};

TEST_F(GradientSemantics, a_sum_counts_each_gradient_by_its_weight) {
  for (const double predivide : {1.0, 8.0}) {
    GradientReducer reducer(all(), world(),
                            {.reduction = GradientReduction::sum, .predivide = predivide});
    backward();
    EXPECT_TRUE(is(a, sum_over(every())));
    EXPECT_TRUE(is(b, 2 * sum_over(every())));
    zero_grad();
    reducer.set_weight(own());
    backward();
    double expected = 0;
    for (const int rank : every()) expected += (rank + 1) * (rank + 1);
    EXPECT_TRUE(is(a, expected));
    backward();  // adds, and counts nothing twice
    EXPECT_TRUE(is(c, 2 * 3 * expected));
    zero_grad();
    reducer.set_weight(0);
    backward();
    EXPECT_TRUE(is(a, 0));
    zero_grad();
  }
}

TEST_F(GradientSemantics, a_sum_of_refused_weights_is_made_again_with_others) {
  GradientReducer reducer(all(), world(), {.reduction = GradientReduction::sum, .predivide = 8});
  reducer.set_weight(-1);
  EXPECT_TRUE(throws<OptionError>([&] { backward(); }, "expected a weight that is 0 or"));
  reducer.set_weight(2);
  reducer.finish();
  EXPECT_TRUE(is(a, 2 * sum_over(every())));
  EXPECT_TRUE(is(c, 2 * 3 * sum_over(every())));
}

TEST_F(GradientSemantics, predivide_keeps_a_sum_of_large_numbers_finite) {
  const double large = 0.75 * static_cast<double>(std::numeric_limits<float>::max());
  for (const double predivide : {1.0, 4.0}) {
    const GradientReducer reducer({a}, world(), {.predivide = predivide});
    (sum(a * large)).backward();
    const bool finite = std::isfinite(a.grad().data<float>()[0]);
    EXPECT_EQ(finite, predivide > 1 || world().size() == 1);
    EXPECT_TRUE(predivide == 1 || is(a, large));
    a.zero_grad();
  }
}

TEST_F(GradientSemantics, what_some_ranks_miss_counts_as_zero_or_is_left_out) {
  for (const bool leave_out : {false, true}) {
    const GradientReducer reducer(
        all(), world(),
        {.bucket_bytes = 1,
         .missing = leave_out ? MissingGradients::leave_out : MissingGradients::zero});
    for (int step = 0; step < 3; ++step) {
      backward(true, world().rank() == 0, world().rank() == last());
      EXPECT_TRUE(is(a, mean_over(every())));
      const double share = leave_out ? 1 : 1.0 / world().size();
      EXPECT_TRUE(is(b, 2 * share));
      EXPECT_TRUE(is(c, 3 * share * world().size()));
      zero_grad();
    }
  }
}

TEST_F(GradientSemantics, the_mean_over_those_that_have_one_is_weighted) {
  if (world().size() < 3) return;
  GradientReducer reducer(all(), world(), {.missing = MissingGradients::leave_out});
  reducer.set_weight(own());
  backward(true, world().rank() < 2, true);
  EXPECT_TRUE(is(b, 2 * (1 * 1 + 2 * 2) / 3.0));
  // Of weight 0, it has no say in the matter, and misses nothing.
  zero_grad();
  reducer.set_weight(world().rank() == 0 ? 0 : 1);
  backward(true, world().rank() > 0, true);
  EXPECT_TRUE(is(b, 2 * mean_over(ranks(1, world().size()))));
}

TEST_F(GradientSemantics, what_is_missed_is_an_error_that_names_it_where_that_is_wanted) {
  const GradientReducer reducer(all(), world(), {.missing = MissingGradients::error});
  backward();
  const Tensor before = b.grad().clone();
  const auto partly = [&] { backward(true, world().rank() != last(), world().rank() != last()); };
  const std::string culprit = "(rank " + std::to_string(last()) + ")";
  EXPECT_TRUE(throws<StateError>(partly, "no gradient of parameters 'b', 'c'", culprit));
  EXPECT_TRUE(bit_equal(before, b.grad()));
  EXPECT_TRUE(is(a, mean_over(every())));
  EXPECT_TRUE(throws<StateError>([&] { backward(true, true, false); },
                                 "no gradient of parameter 'c'", "(rank 0)"));
  c.set_requires_grad(false);
  zero_grad();
  backward(true, true, false);
  EXPECT_TRUE(is(b, 2 * mean_over(every())));
}

TEST_F(GradientSemantics, what_is_missed_is_reported_once_by_rank_0) {
  std::vector<std::string> lines;
  set_log_callback([&](LogLevel, std::string_view line) { lines.emplace_back(line); });
  {
    const GradientReducer reducer(all(), world());
    backward();
    EXPECT_TRUE(lines.empty());
    for (int step = 0; step < 2; ++step) backward(true, world().rank() == 0, false);
  }
  set_log_callback({});
  ASSERT_EQ(lines.size(), world().rank() == 0 ? 1U : 0U);
  if (world().rank() != 0) return;
  EXPECT_NE(lines[0].find("'c'"), std::string::npos) << lines[0];
  EXPECT_EQ(lines[0].find("'b'") != std::string::npos, world().size() > 1) << lines[0];
}

TEST_F(GradientSemantics, buckets_follow_what_is_frozen_and_thawed) {
  for (const auto& arrangement : arrangements()) {
    Communicator ranks(world().handle(), arrangement.options);
    {
      const GradientReducer reducer(all(), ranks, {.bucket_bytes = 1});
      for (int step = 0; step < 12; ++step) {
        // Each for some steps, all at once in others, and then none.
        const bool with_a = step % 4 != 1 && step != 10, with_b = step % 3 != 1 && step != 10,
                   with_c = step < 5 || step > 7;
        a.set_requires_grad(with_a);
        b.set_requires_grad(with_b);
        c.set_requires_grad(with_c);
        backward();
        const double mean = mean_over(every());
        EXPECT_EQ(a.has_grad(), with_a) << step;
        EXPECT_EQ(b.has_grad(), with_b) << step;
        EXPECT_EQ(c.has_grad(), with_c) << step;
        EXPECT_TRUE(!with_a || is(a, mean)) << step << ' ' << arrangement.name;
        EXPECT_TRUE(!with_b || is(b, 2 * mean)) << step << ' ' << arrangement.name;
        EXPECT_TRUE(!with_c || is(c, 3 * mean)) << step << ' ' << arrangement.name;
        zero_grad();
      }
    }
    ranks.close();
  }
}

TEST_F(GradientSemantics, what_is_frozen_on_one_rank_alone_is_an_error_that_names_it) {
  if (world().size() == 1) return;
  GradientReducer reducer(all(), world());
  backward();
  zero_grad();
  b.set_requires_grad(world().rank() != 1);
  EXPECT_TRUE(throws<StateError>([&] { backward(); }, "requires_grad is off for parameter 'b'",
                                 "(rank 1)"));
  EXPECT_FALSE(a.has_grad());
  b.set_requires_grad(true);
  backward();
  EXPECT_TRUE(is(b, 2 * mean_over(every())));
}

TEST_F(GradientSemantics, a_parameter_that_is_used_twice_has_the_sum) {
  const GradientReducer reducer(all(), world());
  (sum(a * own()) + sum(a * a) + sum(a * (2 * own()))).backward();
  EXPECT_TRUE(is(a, 3 * mean_over(every())));
}

TEST_F(GradientSemantics, no_sync_is_nested_and_ends_with_its_last_copy) {
  GradientReducer reducer(all(), world());
  auto outer = reducer.no_sync();
  {
    const auto inner = reducer.no_sync();
    backward();
  }
  backward();
  EXPECT_TRUE(is(a, 2 * own()));
  outer.reset();
  backward();
  EXPECT_TRUE(is(a, 3 * mean_over(every())));
  EXPECT_TRUE(is(c, 9 * mean_over(every())));
}

TEST_F(GradientSemantics, a_backward_that_throws_under_no_sync_fails_the_reduction_on_all_ranks) {
  GradientReducer reducer(all(), world());
  auto deferral = reducer.no_sync();
  backward();
  if (world().rank() == last()) {
    const Variable bad = autograd::record(Tensor::zeros({}), {sum(Variable(a))},
                                          [](const Tensor&, std::span<autograd::GradientSlot>) {
                                            throw std::runtime_error("no derivative");
                                          });
    EXPECT_THROW(bad.backward(), std::runtime_error);
  }
  deferral.reset();
  EXPECT_TRUE(throws<Error>([&] { reducer.finish(); }, "no derivative"));
  EXPECT_FALSE(a.has_grad());
  backward();
  EXPECT_TRUE(is(a, mean_over(every())));
}

TEST_F(GradientSemantics, a_step_before_the_reduction_or_after_zero_grad_is_an_error) {
  NamedOptimizer optimizer(all(), optim::SGD({.lr = 1}));
  GradientReducer reducer(all(), world());
  for (int step = 0; step < 2; ++step) {
    const Tensor before = a.value().clone();
    auto deferral = reducer.no_sync();
    backward();
    for (const bool clips : {false, true}) {
      if (clips) optimizer.set_clipping({.norm = 1e-3});
      const auto make_step = [&] { optimizer.step(); };
      EXPECT_TRUE(throws<StateError>(make_step, "before its gradients are reduced"));
      EXPECT_TRUE(is(a, own()));
    }
    optimizer.remove_clipping();
    deferral.reset();
    reducer.finish();
    optimizer.zero_grad();
    EXPECT_TRUE(throws<StateError>([&] { optimizer.step(); }, "a step without a gradient", "'a'"));
    EXPECT_TRUE(optimizer.step({.allow_none = true}).empty);
    EXPECT_TRUE(bit_equal(a.value(), before));
    backward();
    EXPECT_FALSE(optimizer.step().empty);
    EXPECT_FALSE(bit_equal(a.value(), before));
    optimizer.zero_grad();
  }
  // Nothing waits for a gradient.
  for (Parameter* parameter : {&a, &b, &c}) parameter->set_requires_grad(false);
  EXPECT_TRUE(optimizer.step().empty);
}

TEST_F(GradientSemantics, a_combined_step_needs_a_gradient_of_one_of_its_optimizers) {
  const GradientReducer reducer(all(), world());
  NamedOptimizer first({a}, optim::SGD({.lr = 1})), second({b, c}, optim::SGD({.lr = 1}));
  CombinedOptimizer optimizer({{"first", first}, {"second", second}});
  EXPECT_TRUE(throws<StateError>([&] { optimizer.step(); }, "a step without a gradient"));
  backward(true, false, false);
  EXPECT_FALSE(optimizer.step().empty);
}

TEST_F(GradientSemantics, what_never_had_a_gradient_gets_no_state) {
  const GradientReducer reducer(all(), world());
  NamedOptimizer optimizer(all(), optim::Adam());
  backward(true, world().rank() == 0, false);
  optimizer.step();
  const StateDict state = optimizer.state_dict();
  const StateDict& slots = state.at("state").as_dict();
  EXPECT_TRUE(slots.contains("a"));
  EXPECT_TRUE(slots.contains("b"));
  EXPECT_FALSE(slots.contains("c"));
}

TEST_F(GradientSemantics, refuses_options_that_are_out_of_range_or_differ) {
  for (const double bad : {0.0, -1.0, std::nan(""), HUGE_VAL}) {
    EXPECT_TRUE(throws<OptionError>([&] { GradientReducer(all(), world(), {.predivide = bad}); },
                                    "expected a predivide"));
  }
  if (world().size() == 1) return;
  const bool differs = world().rank() == 1;
  EXPECT_TRUE(throws<OptionError>(
      [&] {
        GradientReducer(all(), world(),
                        {.reduction = differs ? GradientReduction::sum : GradientReduction::mean});
      },
      "reduction = mean", "reduction = sum", "(rank 1)"));
  EXPECT_TRUE(throws<OptionError>(
      [&] {
        GradientReducer(all(), world(),
                        {.missing = differs ? MissingGradients::error : MissingGradients::zero});
      },
      "missing = zero", "missing = error"));
}

TEST_F(GradientSemantics, reductions_of_reducers_in_another_order_are_an_error_that_names_both) {
  if (world().size() == 1) return;
  const Communicator ranks = world().duplicate();
  GradientReducer first({a}, ranks), second({b}, ranks);
  const auto reduce = [&] {
    if (world().rank() == 1) return second.finish();
    first.finish();
  };
  EXPECT_TRUE(throws<StateError>(reduce, "the ranks do not make the same call",
                                 "the gradients of reducer 0", "the gradients of reducer 1"));
}

TEST_F(GradientSemantics, a_reduction_instead_of_another_call_is_an_error_that_names_both) {
  if (world().size() == 1) return;
  // Rank 1 has gone by the time that the others, with this to copy, have begun to wait.
  Parameter large("large", Tensor::zeros({1 << 22}));
  for (int time = 0; time < 5; ++time) {
    const Communicator ranks = world().duplicate();
    GradientReducer small({a}, ranks), reducer({large}, ranks);
    if (world().rank() != 1) large.mutable_grad();
    const auto step = [&] {
      if (world().rank() != 1) return reducer.finish();
      const GradientReducer gone = std::move(reducer);
      ranks.barrier();
    };
    EXPECT_TRUE(throws<StateError>(step, "the ranks do not make the same call",
                                   "the gradients of reducer 1", "rank 1 makes call", "barrier"));
  }
}

TEST_F(GradientSemantics, counts_the_seconds_that_a_rank_waits) {
  const GradientReducer reducer(all(), world());
  EXPECT_EQ(reducer.waited(), 0);
  for (int step = 0; step < 3; ++step) {
    const double before = reducer.waited();
    backward();
    EXPECT_GT(reducer.waited(), before);
  }
}

}  // namespace gradient_semantics_test
}  // namespace lockstep
