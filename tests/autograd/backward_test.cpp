#include <cstdint>
#include <stdexcept>
#include <vector>

#include "lockstep/autograd/operations.hpp"
#include "lockstep/autograd/structure.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace backward_test {

using testing::throws;

Variable leaf(double value) { return {Tensor::full({}, value, DType::f64), true}; }
double gradient(const Variable& x) { return x.grad().item(); }

TEST(Variable, without_a_value_is_undefined) {
  const Variable x;
  EXPECT_FALSE(x.defined());
  EXPECT_EQ(x.identity(), nullptr);
  EXPECT_TRUE(throws<StateError>([&] { x.value(); }, "undefined"));
  EXPECT_THROW(x.requires_grad(), StateError);
  EXPECT_THROW(x.backward(), StateError);
  EXPECT_THROW(x.detach(), StateError);
}

TEST(Variable, is_a_handle) {
  const Variable x = leaf(1), y = x, z = leaf(1);
  EXPECT_EQ(x, y);
  EXPECT_NE(x, z);
  EXPECT_EQ(x.identity(), y.identity());
  EXPECT_NE(x.identity(), z.identity());
}

TEST(Variable, of_integers_cannot_require_a_gradient) {
  for (const DType dtype : {DType::i64, DType::u8}) {
    const Tensor tensor = Tensor::zeros({2}, dtype);
    EXPECT_TRUE(throws<DTypeError>([&] { Variable(tensor, true); }, to_string(dtype)));
    EXPECT_FALSE(Variable(tensor).requires_grad());
  }
}

TEST(Gradient, is_unset_until_a_backward_reaches_it) {
  const Variable x = leaf(2), unused = leaf(3);
  const Variable y = x * 3.0;
  EXPECT_FALSE(x.has_grad());
  EXPECT_TRUE(throws<StateError>([&] { x.grad(); }, "no gradient"));
  y.backward();
  EXPECT_TRUE(x.has_grad());
  EXPECT_EQ(gradient(x), 3);
  EXPECT_FALSE(unused.has_grad());
  EXPECT_FALSE(y.has_grad()) << "only leaves keep a gradient";
}

TEST(Gradient, adds_up_over_backwards) {
  const Variable x = leaf(2);
  (x * 3.0).backward();
  (x * x).backward();
  EXPECT_EQ(gradient(x), 3 + 4);
}

TEST(Gradient, of_a_variable_used_twice_adds_up) {
  const Variable x = leaf(2), y = leaf(2), z = leaf(3);
  (x + x).backward();
  EXPECT_EQ(gradient(x), 2);
  (y * y * y).backward();
  EXPECT_EQ(gradient(y), 12);
  (z - z).backward();
  EXPECT_EQ(gradient(z), 0);
}

TEST(Gradient, of_a_diamond_comes_from_both_sides) {
  const Variable x = leaf(3);
  const Variable top = x * 2.0;
  const Variable left = top * 5.0, right = top * top;
  (left + right).backward();
  EXPECT_EQ(gradient(x), 2 * (5 + 2 * 6));
}

TEST(Gradient, of_a_chain_of_diamonds_visits_each_once) {
  const Variable x = leaf(1);
  Variable y = x;
  for (int i = 0; i < 60; ++i) y = (y + y) * 0.5;
  (y + y).backward();
  EXPECT_EQ(gradient(x), 2);
}

// a + b hands one tensor to both sides; each then gets more, and must not change the other's.
TEST(Gradient, handed_to_two_inputs_is_not_shared_by_them) {
  const Variable x = leaf(1), y = leaf(1);
  const Variable a = x * 1.0, b = y * 1.0;
  const Variable total = a + b;
  (total + a * 10.0 + (b * 100.0 + total)).backward();
  EXPECT_EQ(gradient(x), 12);
  EXPECT_EQ(gradient(y), 102);

  const Variable p = leaf(1), q = leaf(1);
  (p + q).backward();
  (p * 4.0).backward();
  EXPECT_EQ(gradient(p), 5);
  EXPECT_EQ(gradient(q), 1);
}

TEST(Gradient, of_each_leaf_has_memory_of_its_own) {
  const Variable x(Tensor::zeros({3}), true), y(Tensor::zeros({3}), true);
  sum(reshape(x, {3, 1}) + reshape(y, {3, 1})).backward();
  EXPECT_NE(x.grad().raw(), y.grad().raw());
}

TEST(Gradient, stops_at_detach_and_at_constants) {
  const Variable x = leaf(3), constant = Tensor::full({}, 5, DType::f64);
  const Variable still = x.detach();
  EXPECT_FALSE(still.requires_grad());
  EXPECT_TRUE(still.is_leaf());
  EXPECT_EQ(still.value().raw(), x.value().raw());
  (x * still * constant).backward();
  EXPECT_EQ(gradient(x), 15);
  EXPECT_FALSE(still.has_grad());
  EXPECT_FALSE(constant.has_grad());
}

TEST(NoGrad, records_nothing_while_it_lives) {
  const Variable x = leaf(2);
  {
    const NoGrad outer;
    EXPECT_FALSE((x * 2.0).requires_grad());
    {
      const NoGrad inner;
      EXPECT_FALSE((x * 2.0).requires_grad());
    }
    EXPECT_FALSE((x * 2.0).requires_grad()) << "the inner one must not end the outer one";
  }
  EXPECT_TRUE((x * 2.0).requires_grad());
  EXPECT_FALSE((x * 2.0).is_leaf());
  try {
    const NoGrad guard;
    throw std::runtime_error("thrown");
  } catch (const std::runtime_error&) {
  }
  EXPECT_TRUE((x * 2.0).requires_grad());
}

TEST(NoGrad, does_not_stop_a_backward) {
  const Variable x = leaf(2);
  const Variable y = x * x;
  const NoGrad guard;
  y.backward();
  EXPECT_EQ(gradient(x), 4);
}

TEST(Backward, starts_from_one_number_that_depends_on_a_leaf) {
  const Variable vector(Tensor::zeros({2}), true);
  EXPECT_TRUE(throws<StateError>([&] { (vector * 2.0).backward(); }, "one number", "(2)"));
  EXPECT_THROW(Variable(Tensor::zeros({0}), true).backward(), StateError);
  const Variable constant = Tensor::zeros({});
  EXPECT_TRUE(throws<StateError>([&] { (constant * 2.0).backward(); }, "depends on nothing"));
  EXPECT_TRUE(throws<StateError>([&] { constant.backward(); }));
  const Variable one_element(Tensor::zeros({1, 1}), true);
  one_element.backward();
  EXPECT_EQ(one_element.grad().item(), 1);
  EXPECT_EQ(one_element.grad().shape(), (Shape{1, 1}));
}

TEST(Backward, uses_up_the_graph_unless_told_to_keep_it) {
  const Variable x = leaf(3);
  const Variable y = x * x;
  y.backward({.retain_graph = true});
  y.backward({.retain_graph = true});
  y.backward();
  EXPECT_EQ(gradient(x), 18);
  EXPECT_TRUE(throws<StateError>([&] { y.backward(); }, "retain_graph"));
  EXPECT_EQ(gradient(x), 18);
}

TEST(Backward, through_a_part_that_was_used_up_changes_nothing) {
  const Variable x = leaf(3), z = leaf(1);
  const Variable shared = x * x;
  const Variable other = z * shared;
  (shared * 2.0).backward();
  EXPECT_THROW(other.backward(), StateError);
  EXPECT_EQ(gradient(x), 12);
  EXPECT_FALSE(z.has_grad());
  (z * 2.0).backward();
  EXPECT_EQ(gradient(z), 2);
  (x * 1.0).backward();
  EXPECT_EQ(gradient(x), 13);
}

// 200,000 frames of a recursion would not fit on the stack.
TEST(Backward, runs_through_a_deep_chain_and_frees_it) {
  const Variable x = leaf(1), y = leaf(1);
  {
    Variable deep = x;
    for (int i = 0; i < 200'000; ++i) deep = deep + 1.0;
    deep.backward();
    EXPECT_EQ(deep.value().item(), 200'001);
    Variable wide = y;
    for (int i = 0; i < 100'000; ++i) wide = (wide + wide) * 0.5;
    wide.backward({.retain_graph = true});
  }
  EXPECT_EQ(gradient(x), 1);
  EXPECT_EQ(gradient(y), 1);
}

TEST(Backward, frees_a_deep_chain_that_was_never_run) {
  const Variable x = leaf(1);
  Variable deep = x, middle;
  for (int i = 0; i < 200'000; ++i) {
    deep = deep * 1.0;
    if (i == 100'000) middle = deep;
  }
  deep = {};
  middle.backward();
  EXPECT_EQ(gradient(x), 1);
}

// y = 2 x, whose backward writes as `how` says.
enum class Write { receive, pass, nothing, wrong_shape, wrong_dtype, undefined, throws };
Variable twice(const Variable& x, Write how) {
  Tensor result = x.value().clone();
  for (double& value : result.span<double>()) value *= 2;
  return autograd::record(result, {x},
                          [how](const Tensor& gradient, std::span<autograd::GradientSlot> slots) {
                            const double g = 2 * gradient.data<double>()[0];
                            switch (how) {
                              case Write::receive:
                                return slots[0].receive([g](Tensor& out, bool accumulate) {
                                  out.fill(accumulate ? out.data<double>()[0] + g : g);
                                });
                              case Write::pass:
                                return slots[0].pass(Tensor::full(gradient.shape(), g, DType::f64));
                              case Write::nothing:
                                return;
                              case Write::wrong_shape:
                                return slots[0].pass(Tensor::zeros({2}, DType::f64));
                              case Write::wrong_dtype:
                                return slots[0].pass(Tensor::zeros({}, DType::f32));
                              case Write::undefined:
                                return slots[0].pass(Tensor());
                              case Write::throws:
                                throw std::runtime_error("thrown in an operation");
                            }
                          });
}

TEST(Record, makes_operations_of_the_users_own) {
  for (const Write how : {Write::receive, Write::pass}) {
    const Variable x = leaf(3);
    const Variable y = twice(x, how) + twice(twice(x, how), how) + x;
    EXPECT_EQ(y.value().item(), 21);
    y.backward();
    EXPECT_EQ(gradient(x), 7);
  }
}

TEST(Record, takes_a_gradient_left_out_for_zero) {
  const Variable x = leaf(3), only = leaf(3);
  (twice(twice(x, Write::pass), Write::nothing) + x).backward();
  EXPECT_EQ(gradient(x), 1);
  twice(twice(only, Write::pass), Write::nothing).backward();
  EXPECT_FALSE(only.has_grad());
}

TEST(Record, takes_writing_to_a_slot_that_is_not_wanted) {
  const Variable x = leaf(3);
  const Variable constant = Tensor::full({}, 3, DType::f64);
  const Variable y = autograd::record(
      x.value().clone(), {x, constant},
      [](const Tensor& g, std::span<autograd::GradientSlot> slots) {
        EXPECT_TRUE(slots[0].wanted());
        EXPECT_FALSE(slots[1].wanted());
        for (autograd::GradientSlot& slot : slots) slot.pass(g);
        slots[1].receive([](Tensor&, bool) { ADD_FAILURE() << "nobody wants this"; });
      });
  y.backward();
  EXPECT_EQ(gradient(x), 1);
  EXPECT_FALSE(constant.has_grad());
}

TEST(Record, checks_the_gradients_that_it_is_given) {
  for (const bool of_leaf : {true, false}) {
    const Variable x = leaf(3);
    const Variable input = of_leaf ? x : x * 1.0;
    EXPECT_THROW(twice(input, Write::wrong_shape).backward(), ShapeError);
    EXPECT_THROW(twice(input, Write::undefined).backward(), ShapeError);
    EXPECT_TRUE(
        throws<DTypeError>([&] { twice(input, Write::wrong_dtype).backward(); }, "f64", "f32"));
  }
}

TEST(Record, of_an_operation_that_throws_leaves_the_engine_usable) {
  const Variable x = leaf(3), y = leaf(1);
  const Variable shared = y * 2.0;
  const Variable bad = twice(x * 1.0, Write::throws) + shared;
  EXPECT_TRUE(
      throws<std::runtime_error>([&] { bad.backward({.retain_graph = true}); }, "in an operation"));
  EXPECT_FALSE(x.has_grad());
  EXPECT_FALSE(shared.has_grad());
  (x * 5.0).backward();
  EXPECT_EQ(gradient(x), 5);
  const double before = y.has_grad() ? gradient(y) : 0;
  shared.backward();
  EXPECT_EQ(gradient(y) - before, 2) << "no pending count is left over";
}

TEST(Record, refuses_an_undefined_input) {
  EXPECT_THROW(autograd::record(Tensor::zeros({}), {Variable()}, {}), StateError);
}

}  // namespace backward_test
}  // namespace lockstep
