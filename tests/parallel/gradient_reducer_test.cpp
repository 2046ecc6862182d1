#include "lockstep/parallel/gradient_reducer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "lockstep/autograd/operations.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/tensor/random.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace gradient_reducer_test {

using testing::throws;
using testing::world;

template <class T>
class GradientReducerTest : public ::testing::Test {
 protected:
  static constexpr DType dtype = dtype_of<T>;

  static std::vector<NamedParameter> make_parameters() {
    return {Parameter("a", Tensor::full({3, 2}, 1, dtype)),
            Parameter("b", Tensor::full({17}, 2, dtype)),
            Parameter("c", Tensor::full({1}, 3, dtype))};
  }

  // The gradient that a rank draws for a parameter: what adds up over a number of calls.
  static Tensor drawn(int rank, std::size_t parameter, int call, const Shape& shape) {
    Tensor tensor = Tensor::empty(shape, dtype);
    fill_uniform(
        tensor, RandomKey(static_cast<std::uint64_t>(rank + 100 * call) + 1000 * parameter), -1, 1);
    return tensor;
  }

  // Gives each parameter whose index is in `used` this rank's gradient of that call.
  void backward(int call, const std::vector<std::size_t>& used) { loss(call, used)->backward(); }
  std::optional<Variable> loss(int call, const std::vector<std::size_t>& used) {
    std::optional<Variable> total;
    for (const std::size_t i : used) {
      const Parameter& parameter = parameters_[i].parameter;
      const Variable term =
          sum(parameter * Variable(drawn(world().rank(), i, call, parameter.shape())));
      total = total ? *total + term : term;
    }
    return total;
  }

  using Weights = std::vector<double>;  // by rank
  static Weights equal_weights() { return Weights(static_cast<std::size_t>(world().size()), 1.0); }
  static Weights alone(std::size_t rank) {
    Weights weights(static_cast<std::size_t>(world().size()), 0.0);
    weights[rank] = 1;
    return weights;
  }
  // 1, 2, 3, … with 0 for the last rank, where there are several.
  static Weights uneven_weights() {
    Weights weights;
    for (int rank = 0; rank < world().size(); ++rank) weights.push_back(rank + 1.0);
    if (weights.size() > 1) weights.back() = 0;
    return weights;
  }
  static double own(const Weights& weights) {
    return weights[static_cast<std::size_t>(world().rank())];
  }
  static double sum_of(const Weights& weights) {
    return std::accumulate(weights.begin(), weights.end(), 0.0);
  }

  // That the gradient is `factor` times the sum over calls of the weighted means over ranks, and
  // the same on all ranks.
  void expect_gradient(std::size_t parameter, const std::vector<int>& calls,
                       const Weights& weights = equal_weights(), double factor = 1) {
    const Parameter& found = parameters_[parameter].parameter;
    ASSERT_TRUE(found.has_grad()) << parameter;
    std::vector<double> expected(static_cast<std::size_t>(found.size()));
    const double total = sum_of(weights);
    for (const int call : calls) {
      for (int rank = 0; rank < static_cast<int>(weights.size()); ++rank) {
        const Tensor gradient = drawn(rank, parameter, call, found.shape());
        for (std::size_t i = 0; i < expected.size(); ++i) {
          expected[i] += factor * weights[static_cast<std::size_t>(rank)] / total *
                         static_cast<double>(gradient.data<T>()[i]);
        }
      }
    }
    double error = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      error = std::max(
          error, std::abs(static_cast<double>(found.grad().template data<T>()[i]) - expected[i]));
    }
    EXPECT_LE(error, dtype == DType::f32 ? 1e-6 : 1e-14) << parameter;
    Tensor first = found.grad().clone();
    world().broadcast_bytes(first.raw(), first.bytes());
    EXPECT_TRUE(bit_equal(first, found.grad())) << "differs from rank 0";
  }

  static bool last_rank() { return world().rank() == world().size() - 1; }

  std::vector<NamedParameter> parameters_ = make_parameters();
};

using Floating = ::testing::Types<float, double>;
TYPED_TEST_SUITE(GradientReducerTest, Floating);

TYPED_TEST(GradientReducerTest, backward_leaves_the_mean_over_ranks) {
  const GradientReducer reducer(this->parameters_, world());
  this->backward(1, {0, 1, 2});
  for (const std::size_t i : {0U, 1U, 2U}) this->expect_gradient(i, {1});
}

TYPED_TEST(GradientReducerTest, backward_adds_to_what_is_there_and_counts_nothing_twice) {
  const GradientReducer reducer(this->parameters_, world());
  this->backward(1, {0, 1, 2});
  this->backward(2, {0, 1});
  this->backward(3, {0});
  this->expect_gradient(0, {1, 2, 3});
  this->expect_gradient(1, {1, 2});
  this->expect_gradient(2, {1});
  this->parameters_[0].parameter.zero_grad();
  this->parameters_[1].parameter.zero_grad(false);
  this->backward(4, {0, 1});
  this->expect_gradient(0, {4});
  this->expect_gradient(1, {4});
}

TYPED_TEST(GradientReducerTest, a_gradient_from_before_construction_counts_as_reduced) {
  for (auto& [name, parameter] : this->parameters_) {
    parameter.mutable_grad().fill(5);
  }
  const GradientReducer reducer(this->parameters_, world());
  this->backward(1, {0});
  this->parameters_[0].parameter.mutable_grad().copy_from([&] {
    Tensor rest = this->parameters_[0].parameter.grad().clone();
    for (TypeParam& x : rest.template span<TypeParam>()) x -= TypeParam{5};
    return rest;
  }());
  this->expect_gradient(0, {1});
  EXPECT_TRUE(bit_equal(this->parameters_[1].parameter.grad(), Tensor::full({17}, 5, this->dtype)));
}

TYPED_TEST(GradientReducerTest, a_parameter_that_some_ranks_reach_is_averaged_with_zeros) {
  const GradientReducer reducer(this->parameters_, world());
  // Leaves garbage in the storage, which must not be taken for a gradient.
  this->backward(9, {0, 1, 2});
  for (auto& [name, parameter] : this->parameters_) parameter.zero_grad();

  for (int call = 1; call <= 2; ++call) {
    if (world().rank() == 0) {
      this->backward(call, {0, 1});
    } else {
      this->backward(call, {0});
    }
  }
  this->expect_gradient(0, {1, 2});
  this->expect_gradient(1, {1, 2}, this->alone(0), 1.0 / world().size());
  EXPECT_FALSE(this->parameters_[2].parameter.has_grad());
}

TYPED_TEST(GradientReducerTest, a_parameter_that_no_rank_reaches_stays_as_it_was) {
  const GradientReducer reducer(this->parameters_, world());
  this->backward(1, {2});
  const Tensor before = this->parameters_[2].parameter.grad().clone();
  this->backward(2, {0});
  EXPECT_TRUE(bit_equal(before, this->parameters_[2].parameter.grad()));
  EXPECT_FALSE(this->parameters_[1].parameter.has_grad());
}

TYPED_TEST(GradientReducerTest, while_deferred_gradients_add_up_for_one_weighted_reduction) {
  GradientReducer reducer(this->parameters_, world());
  this->backward(1, {0, 1});
  auto deferral = reducer.no_sync();
  this->backward(2, {0});
  this->backward(3, {0, 2});
  deferral.reset();
  const auto weights = this->uneven_weights();
  reducer.set_weight(this->own(weights));
  reducer.finish();
  // The first call was reduced with equal weights: look at the rest alone.
  Tensor& gradient = this->parameters_[0].parameter.mutable_grad();
  for (int rank = 0; rank < world().size(); ++rank) {
    const Tensor first = this->drawn(rank, 0, 1, gradient.shape());
    for (std::int64_t i = 0; i < gradient.size(); ++i) {
      gradient.template data<TypeParam>()[i] -=
          first.data<TypeParam>()[i] / static_cast<TypeParam>(world().size());
    }
  }
  this->expect_gradient(0, {2, 3}, weights);
  this->expect_gradient(1, {1});
  this->expect_gradient(2, {3}, weights);
}

TYPED_TEST(GradientReducerTest, discard_forgets_what_is_not_reduced_yet) {
  GradientReducer reducer(this->parameters_, world());
  this->backward(1, {0});
  const Tensor before = this->parameters_[0].parameter.grad().clone();
  auto deferral = reducer.no_sync();
  this->backward(2, {0, 1});
  reducer.discard();
  deferral.reset();
  EXPECT_TRUE(bit_equal(before, this->parameters_[0].parameter.grad()));
  EXPECT_FALSE(this->parameters_[1].parameter.has_grad());
  this->backward(3, {0, 1});
  this->expect_gradient(0, {1, 3});
  this->expect_gradient(1, {3});
}

TYPED_TEST(GradientReducerTest, refuses_zero_grad_of_what_is_not_reduced_yet) {
  GradientReducer reducer(this->parameters_, world());
  this->backward(1, {0});
  auto deferral = reducer.no_sync();
  this->backward(2, {0, 1});
  for (const bool to_none : {true, false}) {
    for (const std::size_t i : {0U, 1U}) {
      EXPECT_TRUE(throws<StateError>([&] { this->parameters_[i].parameter.zero_grad(to_none); },
                                     "zero_grad() between a backward and the reduction"));
    }
    this->parameters_[2].parameter.zero_grad(to_none);
  }
  deferral.reset();
  reducer.finish();
  this->expect_gradient(0, {1, 2});
  this->expect_gradient(1, {2});
  for (auto& [name, parameter] : this->parameters_) parameter.zero_grad();
  this->backward(3, {0});
  this->expect_gradient(0, {3});
}

TYPED_TEST(GradientReducerTest, a_backward_that_throws_leaves_gradients_as_they_were) {
  const GradientReducer reducer(this->parameters_, world());
  this->backward(1, {0, 1});
  const Tensor before = this->parameters_[0].parameter.grad().clone();
  const auto failing = [](const Variable& x) {
    return autograd::record(x.value(), {x}, [](const Tensor&, std::span<autograd::GradientSlot>) {
      throw std::runtime_error("no derivative");
    });
  };
  // Whichever side is differentiated first.
  for (const bool left : {true, false}) {
    const Variable good = *this->loss(2, {0, 2});
    const Variable bad = failing(sum(Variable(this->parameters_[1].parameter)));
    const Variable loss = left ? bad + good : good + bad;
    EXPECT_TRUE(throws<std::runtime_error>([&] { loss.backward(); }, "no derivative"));
    EXPECT_TRUE(bit_equal(before, this->parameters_[0].parameter.grad()));
    EXPECT_FALSE(this->parameters_[2].parameter.has_grad());
  }
  this->backward(3, {0, 2});
  this->expect_gradient(0, {1, 3});
  this->expect_gradient(2, {3});
}

TYPED_TEST(GradientReducerTest, refuses_a_bad_weight_of_one_rank_on_all) {
  GradientReducer reducer(this->parameters_, world());
  auto deferral = reducer.no_sync();
  this->backward(1, {0, 1});
  const std::string culprit = "(rank " + std::to_string(world().size() - 1) + ")";
  for (const auto& [weight, text] :
       {std::pair{-1.0, "found -1"}, {std::nan(""), "found nan"}, {HUGE_VAL, "found inf"}}) {
    const double own = this->last_rank() ? weight : 1.0;
    reducer.set_weight(own);
    EXPECT_TRUE(throws<OptionError>([&] { reducer.finish(); }, text, culprit));
  }
  reducer.set_weight(2.0);
  reducer.finish();
  this->expect_gradient(0, {1});
  this->expect_gradient(1, {1});
}

TYPED_TEST(GradientReducerTest, refuses_weights_that_are_all_zero) {
  GradientReducer reducer(this->parameters_, world());
  this->backward(9, {1});
  const Tensor before = this->parameters_[1].parameter.grad().clone();
  auto deferral = reducer.no_sync();
  if (world().rank() == 0)
    this->backward(1, {0, 1});
  else
    this->backward(1, {0});
  reducer.set_weight(0);
  EXPECT_TRUE(throws<OptionError>([&] { reducer.finish(); }, "weights of all ranks are zero"));
  const auto weights = this->uneven_weights();
  reducer.set_weight(this->own(weights));
  reducer.finish();
  this->expect_gradient(0, {1}, weights);
  // Rank 0 alone has reached "b", which others had a reduced gradient of.
  Tensor& gradient = this->parameters_[1].parameter.mutable_grad();
  for (std::int64_t i = 0; i < gradient.size(); ++i) {
    gradient.template data<TypeParam>()[i] -= before.template data<TypeParam>()[i];
  }
  this->expect_gradient(1, {1}, this->alone(0), weights[0] / this->sum_of(weights));
}

TYPED_TEST(GradientReducerTest, with_nothing_to_reduce_does_nothing) {
  GradientReducer reducer(this->parameters_, world());
  reducer.finish();
  reducer.set_weight(0);
  reducer.finish();
  for (const auto& [name, parameter] : this->parameters_) EXPECT_FALSE(parameter.has_grad());
}

TYPED_TEST(GradientReducerTest, averages_over_a_part_of_the_ranks) {
  const int colour = world().rank() % 2;
  MPI_Comm split = MPI_COMM_NULL;
  MPI_Comm_split(world().handle(), colour, world().rank(), &split);
  Communicator half(split);
  MPI_Comm_free(&split);
  const GradientReducer reducer(this->parameters_, half);
  half.close();  // the reducer has a duplicate of its own
  this->backward(1, {0});
  for (std::int64_t i = 0; i < 6; ++i) {
    double expected = 0;
    int members = 0;
    for (int rank = colour; rank < world().size(); rank += 2, ++members) {
      expected +=
          static_cast<double>(this->drawn(rank, 0, 1, {3, 2}).template data<TypeParam>()[i]);
    }
    EXPECT_NEAR(
        static_cast<double>(this->parameters_[0].parameter.grad().template data<TypeParam>()[i]),
        expected / members, 1e-6);
  }
}

TYPED_TEST(GradientReducerTest, several_take_part_in_one_backward) {
  const GradientReducer first({this->parameters_[0]}, world());
  const GradientReducer second({this->parameters_[2], this->parameters_[1]}, world());
  this->backward(1, {0, 1, 2});
  this->backward(2, {2, 0});
  this->expect_gradient(0, {1, 2});
  this->expect_gradient(1, {1});
  this->expect_gradient(2, {1, 2});
}

TEST(GradientReducerMixed, keeps_dtypes_apart) {
  const Parameter single("single", Tensor::full({3}, 1)), other("other", Tensor::full({3}, 1));
  const Parameter twofold("twofold", Tensor::full({3}, 1, DType::f64));
  const GradientReducer reducer({single, twofold, other}, world());
  const double own = world().rank() + 1, mean = (world().size() + 1) / 2.0;
  (sum(single * own) + sum(other * (2 * own))).backward();
  EXPECT_FALSE(twofold.has_grad());
  sum(twofold * (3 * own)).backward();
  EXPECT_NEAR(single.grad().data<float>()[2], mean, 1e-6);
  EXPECT_NEAR(other.grad().data<float>()[0], 2 * mean, 2e-6);
  EXPECT_NEAR(twofold.grad().data<double>()[0], 3 * mean, 1e-14);
}

TEST(GradientReducerHooks, tell_all_ranks_in_the_next_round_what_a_final_one_has_thrown_on_one) {
  Parameter parameter("p", Tensor::full({3}, 1));
  GradientReducer reducer({parameter}, world());
  const int last = world().size() - 1;
  const auto backward = [&] { sum(parameter * 2).backward(); };
  for (const bool discards : {false, true}) {
    const std::int64_t hook = parameter.register_final_hook([last](const Parameter&) {
      if (world().rank() == last) throw DataError("the disk is full");
    });
    if (world().rank() == last) {
      EXPECT_TRUE(throws<DataError>(backward, "the disk is full"));
      if (discards) reducer.discard();
    } else {
      backward();
    }
    parameter.remove_hook(hook);
    parameter.zero_grad();
    if (!discards && last > 0) {
      EXPECT_TRUE(throws<DataError>(backward, "the disk is full", fmt::format("(rank {})", last)));
      EXPECT_FALSE(parameter.has_grad());
    }
    backward();
    EXPECT_EQ(parameter.grad().data<float>()[0], 2);
    parameter.zero_grad();
  }
}

}  // namespace gradient_reducer_test
}  // namespace lockstep
