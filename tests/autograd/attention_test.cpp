#include "lockstep/autograd/attention.hpp"

#include <cmath>
#include <vector>

#include "lockstep/autograd/activations.hpp"
#include "lockstep/autograd/structure.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/gradient_check.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace attention_test {

using testing::check_gradients;
using testing::throws;
using testing::uniform;
using Inputs = std::vector<Variable>;

Tensor mask(const std::vector<std::uint8_t>& hidden, const Shape& shape) {
  return Tensor::from(hidden, shape);
}

TEST(Attention, differentiates) {
  const std::vector<Tensor> inputs{uniform({2, 3, 4}, 1), uniform({2, 5, 4}, 2),
                                   uniform({2, 5, 4}, 3)};
  for (const std::int64_t heads : {1, 2, 4}) {
    check_gradients(
        [heads](const Inputs& x) { return attention(x[0], x[1], x[2], {.heads = heads}); }, inputs);
  }
  const Tensor hidden = mask({0, 1, 0, 0, 1, 0, 0, 0, 0, 1}, {2, 5});
  check_gradients(
      [&](const Inputs& x) {
        return attention(x[0], x[1], x[2], {.heads = 2, .key_padding_mask = hidden});
      },
      inputs);
  check_gradients(
      [](const Inputs& x) { return attention(x[0], x[0], x[0], {.heads = 2, .causal = true}); },
      {uniform({2, 4, 6}, 4)});
}

TEST(Attention, of_one_head_is_what_the_formula_says) {
  const Variable q = uniform({1, 3, 4}, 1), k = uniform({1, 5, 4}, 2), v = uniform({1, 5, 4}, 3);
  const auto flat = [](const Variable& x) { return reshape(x, {x.shape()[1], 4}); };
  const Variable scores = matmul(flat(q), permute(flat(k), {1, 0})) / 2.0;
  const Variable expected = matmul(softmax(scores), flat(v));
  testing::expect_near(attention(q, k, v).value(), reshape(expected, {1, 3, 4}).value(), 1e-14,
                       "value");
}

TEST(Attention, sees_no_key_that_is_hidden) {
  const Variable q = uniform({1, 2, 4}, 1);
  Tensor k = uniform({1, 3, 4}, 2), v = uniform({1, 3, 4}, 3);
  const AttentionOptions options{.heads = 2, .key_padding_mask = mask({0, 0, 1}, {1, 3})};
  const Tensor before = attention(q, k, v, options).value();
  for (std::size_t i = 8; i < 12; ++i) k.span<double>()[i] = v.span<double>()[i] = 1e6;
  EXPECT_TRUE(bit_equal(attention(q, k, v, options).value(), before));
  testing::expect_near(before,
                       attention(q, k.reshape({3, 4}).rows(0, 2).reshape({1, 2, 4}),
                                 v.reshape({3, 4}).rows(0, 2).reshape({1, 2, 4}), {.heads = 2})
                           .value(),
                       1e-14, "the first two keys");
}

TEST(Attention, of_a_query_that_sees_nothing_is_zero) {
  const Variable x(uniform({1, 2, 4}, 1), true);
  const Variable y = attention(x, x, x, {.key_padding_mask = mask({1, 1}, {1, 2})});
  EXPECT_TRUE(bit_equal(y.value(), Tensor::zeros({1, 2, 4}, DType::f64)));
  sum(y).backward();
  EXPECT_TRUE(bit_equal(x.grad(), Tensor::zeros({1, 2, 4}, DType::f64)));
}

TEST(Attention, that_is_causal_does_not_see_what_follows) {
  Tensor x = uniform({1, 4, 2}, 1);
  const Tensor before = attention(x, x, x, {.causal = true}).value();
  x.span<double>()[6] = 50;
  const Tensor after = attention(x, x, x, {.causal = true}).value();
  for (std::size_t i = 0; i < 6; ++i) EXPECT_EQ(before.span<double>()[i], after.span<double>()[i]);
  EXPECT_NE(before.span<double>()[6], after.span<double>()[6]);
}

TEST(Attention, refuses_what_does_not_fit) {
  const auto zeros = [](const Shape& shape) { return Variable(Tensor::zeros(shape)); };
  const Variable q = zeros({2, 3, 4}), k = zeros({2, 5, 4});
  EXPECT_TRUE(throws<ShapeError>([&] { attention(zeros({3, 4}), k, k); }, "queries", "(3, 4)"));
  EXPECT_TRUE(throws<ShapeError>([&] { attention(q, zeros({1, 5, 4}), k); }, "keys", "(1, 5, 4)"));
  EXPECT_TRUE(throws<ShapeError>(
      [&] {
        attention(q, k, zeros({2, 4, 4}));
      },
      "values", "(2, 4, 4)"));
  EXPECT_TRUE(throws<ShapeError>(
      [&] {
        attention(q, zeros({2, 0, 4}), zeros({2, 0, 4}));
      },
      "one key"));
  for (const std::int64_t heads : {0, 3, -2}) {
    EXPECT_TRUE(
        throws<OptionError>([&] { attention(q, k, k, {.heads = heads}); }, "divide 4 features"));
  }
  EXPECT_TRUE(throws<OptionError>([&] { attention(q, k, k, {.causal = true}); }, "5 and 3"));
  EXPECT_TRUE(throws<ShapeError>(
      [&] {
        attention(q, k, k, {.key_padding_mask = mask({1, 0}, {1, 2})});
      },
      "mask of shape (2, 5)"));
  EXPECT_THROW(attention(q, k, k, {.key_padding_mask = Tensor::zeros({2, 5})}), DTypeError);
  EXPECT_THROW(attention(q, Tensor::zeros({2, 5, 4}, DType::f64), k), DTypeError);
}

}  // namespace attention_test
}  // namespace lockstep
