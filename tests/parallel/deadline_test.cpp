#include <chrono>
#include <string>

#include "comm/placements.hpp"
#include "lockstep/autograd/parameter.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/parallel/gradient_reducer.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(2, 3, 4);

namespace lockstep {
namespace deadline_test {

using namespace std::chrono_literals;
using testing::few_arrangements;
using testing::throws;
using testing::world;

TEST(ReducerDeadline, ends_a_reduction_to_which_a_rank_does_not_come) {
  for (const auto& [name, options, nodes] : few_arrangements(800ms)) {
    const Communicator ranks(world().handle(), options);
    Parameter weight("weight", Tensor::zeros({100})), bias("bias", Tensor::zeros({3}));
    GradientReducer reducer({weight, bias}, ranks);
    const auto reduce = [&] {
      for (Parameter parameter : {bias, weight}) {
        parameter.mutable_grad().fill(1);
        reducer.mark_ready(parameter);
      }
      reducer.finish();
    };
    reduce();
    world().barrier();
    const bool comes = world().rank() != 0;
    if (comes) {
      EXPECT_TRUE(throws<DeadlineError>(reduce, " has waited 0.8 s for ")) << name;
    }
    world().barrier();
    // It may have all that it needs by now, and completes this one.
    if (!comes) {
      try {
        reduce();
      } catch (const DeadlineError&) {
      }
    }
    EXPECT_TRUE(throws<DeadlineError>(reduce)) << name << ", once more";
    world().barrier();
  }
}

}  // namespace deadline_test
}  // namespace lockstep
