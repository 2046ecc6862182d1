// Gradients that are not finite on one rank are so on all, and all do the same about them.
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include "lockstep/autograd/operations.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/nn/layers.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/parallel/data_parallel.hpp"
#include "lockstep/tensor/random.hpp"
#include "lockstep/testing/mpi_test.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace non_finite_test {

using optim::NonFinite;
using testing::world;

class NonFiniteGradients : public ::testing::TestWithParam<double> {
 protected:
  NonFiniteGradients() { model_.initialize(1); }

  // A backward in which the loss of one rank is not finite.
  void backward(int culprit) {
    optimizer_.zero_grad();
    Tensor x = Tensor::empty({3, 4});
    fill_uniform(x, RandomKey(static_cast<std::uint64_t>(world().rank())), -1, 1);
    const double gain = world().rank() == culprit ? GetParam() : 1;
    (sum(replica_(x)) * gain).backward();
  }

  StateDict state() const {
    return StateDict{{"model", model_.state_dict()}, {"optimizer", optimizer_.state_dict()}}
        .clone();
  }

  // Whether all ranks have the same bits.
  static bool same_on_all(const Tensor& tensor) {
    Tensor first = tensor.clone();
    world().broadcast_bytes(first.raw(), first.bytes());
    return world().all_reduce(std::int64_t{bit_equal(first, tensor)}, ReduceOp::min) == 1;
  }

  nn::Sequential model_{nn::Linear(4, 8), nn::Tanh(), nn::Linear(8, 2)};
  DataParallel replica_{model_, world()};
  NamedOptimizer optimizer_{model_.named_parameters(), optim::Adam()};
};

TEST_P(NonFiniteGradients, of_one_rank_are_the_same_error_on_all) {
  optimizer_.set_clipping({.non_finite = NonFinite::error});
  for (int culprit = 0; culprit < world().size(); ++culprit) {
    const StateDict before = state();
    backward(culprit);
    std::string message;
    try {
      optimizer_.step();
    } catch (const StateError& error) {
      message = error.what();
    }
    std::string expected = "the gradient of parameter '0.weight' is not finite, nor are 3 others";
    // The first round tells the reducer to measure, and the second does.
    if (culprit > 1) expected += " (rank " + std::to_string(culprit) + ")";
    EXPECT_EQ(message, expected);
    EXPECT_TRUE(bit_equal(before, state()));
  }
}

TEST_P(NonFiniteGradients, of_one_rank_let_all_skip_the_step) {
  optimizer_.set_clipping({.non_finite = NonFinite::skip});
  for (int culprit = 0; culprit < world().size(); ++culprit) {
    const StateDict before = state();
    backward(culprit);
    const StepReport report = optimizer_.step();
    EXPECT_FALSE(report.applied);
    EXPECT_EQ(report.non_finite.size(), 4U);
    EXPECT_TRUE(bit_equal(before, state()));
    backward(-1);
    EXPECT_TRUE(optimizer_.step().applied);
  }
}

TEST_P(NonFiniteGradients, of_one_rank_go_into_the_values_of_all_where_they_are_ignored) {
  for (const bool looks : {false, true}) {
    if (looks) optimizer_.set_clipping({.non_finite = NonFinite::ignore});
    backward(world().size() - 1);
    const StepReport report = optimizer_.step();
    EXPECT_TRUE(report.applied);
    EXPECT_EQ(report.non_finite.size(), looks ? 4U : 0U);
    for (const auto& [name, parameter] : model_.named_parameters()) {
      EXPECT_TRUE(std::isnan(parameter.value().data<float>()[0])) << name;
      EXPECT_TRUE(same_on_all(parameter.value())) << name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, NonFiniteGradients,
                         ::testing::Values(std::numeric_limits<double>::quiet_NaN(),
                                           std::numeric_limits<double>::infinity(),
                                           -std::numeric_limits<double>::infinity()));

}  // namespace non_finite_test
}  // namespace lockstep
