// Where values and gradients live, who may have them, and what a reducer refuses.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "lockstep/autograd/operations.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/parallel/gradient_reducer.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace gradient_reducer_memory_test {

using testing::throws;
using testing::world;

std::vector<NamedParameter> make_parameters() {
  return {Parameter("a", Tensor::full({3, 2}, 1)), Parameter("b", Tensor::full({17}, 2)),
          Parameter("c", Tensor::full({1}, 3)), Parameter("d", Tensor::full({9}, 4, DType::f64))};
}

const std::byte* bytes(const Tensor& tensor) { return static_cast<const std::byte*>(tensor.raw()); }

// That a backward leaves the mean of what the ranks have.
void expect_reduces(const std::vector<NamedParameter>& parameters) {
  const double own = world().rank() + 1, mean = (world().size() + 1) / 2.0;
  for (const auto& [name, parameter] : parameters) {
    Parameter(parameter).zero_grad();
    sum(parameter * own).backward();
    EXPECT_NEAR(parameter.grad().to(DType::f64).data<double>()[0], mean, 1e-6) << name;
  }
}

bool last_rank() { return world().rank() == world().size() - 1; }

// That a list which differs on the last rank is refused on all, and that all parameters are free
// for the next reducer.
template <class E, class... Parts>
::testing::AssertionResult refused(const std::vector<NamedParameter>& parameters,
                                   const Parts&... parts) {
  const auto result =
      throws<E>([&] { const GradientReducer reducer(parameters, world()); }, parts...);
  for (const auto& [name, parameter] : parameters) {
    EXPECT_EQ(parameter.gradient_owner(), nullptr) << name;
    EXPECT_EQ(parameter.layout_epoch(), 0U) << name;
  }
  const std::vector<NamedParameter> next = make_parameters();
  const GradientReducer reducer(next, world());
  expect_reduces(next);
  return result;
}

TEST(GradientReducerErrors, lists_that_differ_on_one_rank_are_refused_on_all) {
  if (world().size() == 1) return;  // one rank cannot differ from itself
  const std::string last = "on rank " + std::to_string(world().size() - 1);
  const auto list = [](auto&& edit) {
    std::vector<NamedParameter> parameters = make_parameters();
    if (last_rank()) edit(parameters);
    return parameters;
  };
  const auto named = list([](auto& p) { p[1].name = "z"; });
  EXPECT_TRUE(refused<NameError>(named, "the replicas differ", "parameter 1",
                                 "'b' f32 (17) on rank 0", "'z' f32 (17) " + last));
  const auto ordered = list([](auto& p) { std::swap(p[1], p[2]); });
  EXPECT_TRUE(refused<NameError>(ordered, "'b' f32 (17) on rank 0", "'c' f32 (1) " + last));
  const auto shaped = list([](auto& p) { p[0] = Parameter("a", Tensor::zeros({2, 3})); });
  EXPECT_TRUE(refused<ShapeError>(shaped, "'a' f32 (3, 2) on rank 0", "'a' f32 (2, 3) " + last));
  const auto typed = list([](auto& p) { p[2] = Parameter("c", Tensor::zeros({1}, DType::f64)); });
  EXPECT_TRUE(refused<DTypeError>(typed, "'c' f32 (1) on rank 0", "'c' f64 (1) " + last));
  const auto fewer = list([](auto& p) { p.pop_back(); });
  EXPECT_TRUE(refused<NameError>(fewer, "'d' f64 (9) on rank 0", "missing " + last));
  const auto more = list([](auto& p) { p.push_back(Parameter("e", Tensor::zeros({2}))); });
  EXPECT_TRUE(refused<NameError>(more, "missing on rank 0", "'e' f32 (2) " + last));
}

TEST(GradientReducerErrors, faults_of_the_list_of_one_rank_are_refused_on_all) {
  const std::string culprit = "(rank " + std::to_string(world().size() - 1) + ")";
  const std::vector<NamedParameter> good = make_parameters();
  const auto if_last = [&](std::vector<NamedParameter> bad) { return last_rank() ? bad : good; };
  EXPECT_TRUE(refused<OptionError>(if_last({}), "no parameters to reduce", culprit));
  EXPECT_TRUE(refused<NameError>(if_last({good[0], {"a", good[1].parameter}}),
                                 "two parameters are called 'a'", culprit));
  EXPECT_TRUE(refused<NameError>(if_last({good[0], {"z", good[0].parameter}}),
                                 "parameter 'z' appears under another name", culprit));
}

TEST(GradientReducerErrors, a_parameter_that_has_a_reducer_is_refused_and_keeps_it) {
  const std::vector<NamedParameter> parameters = make_parameters();
  const GradientReducer reducer(parameters, world());
  const std::vector<NamedParameter> others{Parameter("other", Tensor::full({2}, 1)), parameters[2]};
  EXPECT_TRUE(throws<StateError>(
      [&] { const GradientReducer second(last_rank() ? others : make_parameters(), world()); },
      "parameter 'c' already belongs to a DataParallel or GradientReducer"));
  EXPECT_EQ(others[0].parameter.gradient_owner(), nullptr);
  expect_reduces(parameters);
}

TEST(GradientReducerMemory, lies_flat_in_reverse_order_at_64_byte_boundaries) {
  const std::vector<NamedParameter> parameters = make_parameters();
  const GradientReducer reducer(parameters, world());
  expect_reduces(parameters);
  for (const auto& [name, parameter] : parameters) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(parameter.value().raw()) % 64, 0U) << name;
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(parameter.grad().raw()) % 64, 0U) << name;
  }
  const auto distance = [&](std::size_t from, std::size_t to, bool of_values) {
    const Parameter &low = parameters[from].parameter, &high = parameters[to].parameter;
    return of_values ? bytes(high.value()) - bytes(low.value())
                     : bytes(high.grad()) - bytes(low.grad());
  };
  for (const bool of_values : {true, false}) {
    EXPECT_EQ(distance(2, 1, of_values), 64);   // c has one float,
    EXPECT_EQ(distance(1, 0, of_values), 128);  // b 17 of them
  }
}

TEST(GradientReducerMemory, values_move_in_and_out_and_pointers_stay_meanwhile) {
  std::vector<NamedParameter> parameters = make_parameters();
  const Tensor handle = parameters[0].parameter.value();
  {
    const GradientReducer reducer(parameters, world());
    Parameter& a = parameters[0].parameter;
    EXPECT_NE(a.value().raw(), handle.raw());
    EXPECT_TRUE(bit_equal(a.value(), handle));
    expect_reduces(parameters);
    const auto reduce = [&a] {
      a.zero_grad();
      sum(a * (world().rank() + 1.0)).backward();
    };
    reduce();
    const void *value = a.value().raw(), *reduced = a.grad().raw(), *own = a.mutable_grad().raw();
    EXPECT_EQ(own == reduced, world().size() == 1);
    for (int step = 0; step < 3; ++step) {
      reduce();
      a.mutable_value().fill(7);
      EXPECT_EQ(a.value().raw(), value);
      EXPECT_EQ(a.grad().raw(), reduced);
      EXPECT_EQ(a.mutable_grad().raw(), own);
      EXPECT_EQ(a.grad().raw(), own);
    }
  }
  const Parameter& a = parameters[0].parameter;
  EXPECT_EQ(a.gradient_owner(), nullptr);
  EXPECT_TRUE(bit_equal(a.value(), Tensor::full({3, 2}, 7)));
  ASSERT_TRUE(a.has_grad());
  EXPECT_NEAR(a.grad().data<float>()[5], (world().size() + 1) / 2.0, 1e-6);
  // Without a reducer, gradients are this rank's own.
  const float before = a.grad().data<float>()[0];
  sum(a * (world().rank() + 1.0)).backward();
  EXPECT_NEAR(a.grad().data<float>()[0], before + static_cast<float>(world().rank() + 1), 1e-6);
}

TEST(GradientReducerMemory, borrowed_memory_stays_in_place) {
  std::vector<double> field(9, 4.0);
  std::vector<NamedParameter> parameters = make_parameters();
  parameters[3] = Parameter("d", Tensor::borrow(field));
  {
    const GradientReducer reducer(parameters, world());
    EXPECT_EQ(parameters[3].parameter.value().raw(), field.data());
    expect_reduces(parameters);
    field[0] = 8;
    EXPECT_EQ(parameters[3].parameter.value().data<double>()[0], 8);
  }
  EXPECT_EQ(parameters[3].parameter.value().raw(), field.data());
  EXPECT_TRUE(parameters[3].parameter.value().borrowed());
  EXPECT_EQ(field, (std::vector<double>{8, 4, 4, 4, 4, 4, 4, 4, 4}));
  EXPECT_NEAR(parameters[3].parameter.grad().data<double>()[0], (world().size() + 1) / 2.0, 1e-12);
}

TEST(GradientReducerMemory, destruction_waits_for_nobody) {
  const std::vector<NamedParameter> first = make_parameters(), second = make_parameters();
  auto one = std::make_unique<GradientReducer>(first, world());
  auto two = std::make_unique<GradientReducer>(second, world());
  expect_reduces(first);
  // Rank 0 has destroyed both before another rank begins to.
  if (world().rank() == 0) {
    two.reset();
    one.reset();
  }
  EXPECT_EQ(world().all_reduce(1.0), world().size());
  if (world().rank() != 0) {
    one.reset();
    EXPECT_EQ(second[0].parameter.gradient_owner() != nullptr, true);
    two.reset();
  }
  const GradientReducer again(first, world());
  expect_reduces(first);
}

TEST(GradientReducerMemory, a_moved_reducer_goes_on) {
  const std::vector<NamedParameter> first = make_parameters(), second = make_parameters();
  GradientReducer one(first, world());
  GradientReducer moved = std::move(one);
  expect_reduces(first);
  GradientReducer two(second, world());
  moved = std::move(two);
  EXPECT_EQ(first[0].parameter.gradient_owner(), nullptr);
  expect_reduces(second);
}

TEST(GradientReducerMemory, parameters_without_elements_take_part) {
  const std::vector<NamedParameter> parameters{Parameter("empty", Tensor::zeros({0})),
                                               Parameter("full", Tensor::full({5}, 1)),
                                               Parameter("none", Tensor::zeros({2, 0}))};
  const GradientReducer reducer(parameters, world());
  const double own = world().rank() + 1;
  (sum(parameters[0].parameter * own) + sum(parameters[1].parameter * own)).backward();
  EXPECT_EQ(parameters[0].parameter.grad().size(), 0);
  EXPECT_NEAR(parameters[1].parameter.grad().data<float>()[4], (world().size() + 1) / 2.0, 1e-6);
}

}  // namespace gradient_reducer_memory_test
}  // namespace lockstep
