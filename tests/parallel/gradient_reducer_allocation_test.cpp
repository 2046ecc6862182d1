// After the first rounds, a reduction takes no memory.

#include <cstddef>
#include <string>
#include <vector>

#include "comm/placements.hpp"
#include "lockstep/parallel/gradient_reducer.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/allocation_counter.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 4);

namespace lockstep {
namespace gradient_reducer_allocation_test {

using testing::allocated_bytes;
using testing::arrangements;
using testing::world;

TEST(GradientReducerAllocation, there_is_none_after_the_first_rounds) {
  for (const auto& arrangement : arrangements()) {
    const Communicator ranks(world().handle(), arrangement.options);
    std::vector<NamedParameter> parameters;
    for (int i = 0; i < 50; ++i) {
      parameters.emplace_back(
          Parameter("p" + std::to_string(i), Tensor::zeros({1 + 300 * (i % 5)})));
    }
    GradientReducer reducer(parameters, ranks, {.bucket_bytes = 2000});
    const auto round = [&] {
      for (auto& [name, parameter] : parameters) {
        parameter.mutable_grad().fill(1);
        reducer.mark_ready(parameter);
      }
      reducer.finish();
    };
    for (int i = 0; i < 20; ++i) round();
    const std::size_t before = allocated_bytes();
    for (int i = 0; i < 20; ++i) round();
    EXPECT_EQ(allocated_bytes(), before) << arrangement.name;
  }
}

}  // namespace gradient_reducer_allocation_test
}  // namespace lockstep
