#include "lockstep/autograd/recurrent.hpp"

#include <vector>

#include "lockstep/autograd/structure.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/gradient_check.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace recurrent_test {

using testing::check_gradients;
using testing::throws;
using testing::uniform;
using Inputs = std::vector<Variable>;

constexpr std::int64_t samples = 2, steps = 3, in = 4, hidden = 5;

// x, and weights of so many gates.
std::vector<Tensor> operands(std::int64_t gates) {
  return {uniform({samples, steps, in}, 1), uniform({gates * hidden, in}, 2),
          uniform({gates * hidden, hidden}, 3), uniform({gates * hidden}, 4),
          uniform({gates * hidden}, 5)};
}

RecurrentWeights weights(const Inputs& x) { return {x[1], x[2], x[3], x[4]}; }

TEST(Recurrent, differentiates_outputs_and_last_states) {
  for (const bool reverse : {false, true}) {
    std::vector<Tensor> of_lstm = operands(4), of_gru = operands(3);
    const auto plain = [reverse](const Inputs& x) {
      const LstmResult found = lstm(x[0], weights(x), {}, {}, reverse);
      return concatenate({reshape(found.outputs, {samples * steps, hidden}), found.cell}, 0);
    };
    check_gradients(plain, of_lstm);
    check_gradients(
        [reverse](const Inputs& x) { return gru(x[0], weights(x), {}, reverse).outputs; }, of_gru);
    of_lstm.push_back(uniform({samples, hidden}, 6));
    of_lstm.push_back(uniform({samples, hidden}, 7));
    of_gru.push_back(uniform({samples, hidden}, 6));
    const auto from_state = [reverse](const Inputs& x) {
      const LstmResult found = lstm(x[0], weights(x), x[5], x[6], reverse);
      return concatenate(
          {found.hidden, found.cell, reshape(found.outputs, {samples * steps, hidden})}, 0);
    };
    check_gradients(from_state, of_lstm);
    check_gradients(
        [reverse](const Inputs& x) { return gru(x[0], weights(x), x[5], reverse).hidden; }, of_gru);
  }
}

TEST(Recurrent, has_no_biases_where_there_are_none) {
  const std::vector<Tensor> all = operands(4);
  const std::vector<Tensor> some{all[0], all[1], all[2]};
  check_gradients([](const Inputs& x) { return lstm(x[0], {x[1], x[2], {}, {}}).outputs; }, some);
  const Variable zeros = Tensor::zeros({4 * hidden}, DType::f64);
  EXPECT_TRUE(bit_equal(lstm(all[0], {all[1], all[2], {}, {}}).outputs.value(),
                        lstm(all[0], {all[1], all[2], zeros, zeros}).outputs.value()));
}

// A sequence in two parts, with the state in between.
TEST(Recurrent, goes_on_from_the_last_state) {
  const std::vector<Tensor> all = operands(4), other = operands(3);
  const Variable x = all[0];
  const Inputs of_lstm(all.begin(), all.end()), of_gru(other.begin(), other.end());
  const LstmResult whole = lstm(x, weights(of_lstm));
  const LstmResult first = lstm(slice(x, 1, 0, 2), weights(of_lstm));
  const LstmResult rest = lstm(slice(x, 1, 2, 3), weights(of_lstm), first.hidden, first.cell);
  // Products of other sizes are rounded otherwise.
  testing::expect_near(concatenate({first.outputs, rest.outputs}, 1).value(), whole.outputs.value(),
                       1e-14, "outputs");
  testing::expect_near(rest.cell.value(), whole.cell.value(), 1e-14, "cell");
  const GruResult all_steps = gru(x, weights(of_gru));
  const GruResult begin = gru(slice(x, 1, 0, 1), weights(of_gru));
  const GruResult end = gru(slice(x, 1, 1, 3), weights(of_gru), begin.hidden);
  testing::expect_near(end.hidden.value(), all_steps.hidden.value(), 1e-14, "hidden");
}

TEST(Recurrent, begins_with_the_last_step_where_that_is_asked_for) {
  const std::vector<Tensor> all = operands(3);
  const Inputs x(all.begin(), all.end());
  std::vector<Variable> turned, expected;
  const Variable found = gru(x[0], weights(x), {}, true).outputs;
  for (std::int64_t i = steps; i-- > 0;) turned.push_back(slice(x[0], 1, i, i + 1));
  const Variable outputs = gru(concatenate(turned, 1), weights(x)).outputs;
  for (std::int64_t i = steps; i-- > 0;) expected.push_back(slice(outputs, 1, i, i + 1));
  EXPECT_TRUE(bit_equal(found.value(), concatenate(expected, 1).value()));
}

TEST(Recurrent, refuses_what_does_not_fit) {
  const std::vector<Tensor> all = operands(4);
  const auto zeros = [](const Shape& shape) { return Variable(Tensor::zeros(shape, DType::f64)); };
  const RecurrentWeights good{all[1], all[2], all[3], all[4]};
  const Variable x = all[0];
  EXPECT_TRUE(throws<ShapeError>([&] { lstm(zeros({2, 4}), good); }, "(n, steps, in)", "(2, 4)"));
  EXPECT_TRUE(throws<ShapeError>([&] { lstm(zeros({2, 0, 4}), good); }, "at least one step"));
  EXPECT_TRUE(throws<ShapeError>(
      [&] {
        lstm(zeros({2, 3, 5}), good);
      },
      "input weight of shape (20, 5)"));
  EXPECT_TRUE(throws<ShapeError>([&] { gru(x, good); }, "gru", "hidden weight", "(20, 5)"));
  RecurrentWeights bad = good;
  bad.hidden_bias = zeros({5});
  EXPECT_TRUE(throws<ShapeError>([&] { lstm(x, bad); }, "bias of shape (20)", "(5)"));
  EXPECT_TRUE(throws<ShapeError>(
      [&] {
        lstm(x, good, zeros({3, 5}));
      },
      "state of shape (2, 5)", "(3, 5)"));
  EXPECT_TRUE(throws<ShapeError>(
      [&] {
        lstm(x, good, {}, zeros({2, 4}));
      },
      "state of shape (2, 5)"));
  EXPECT_THROW(lstm(Tensor::zeros({2, 3, 4}), good), DTypeError);
}

}  // namespace recurrent_test
}  // namespace lockstep
