// Reducers leave no request and no window of MPI, and each two communicators until the one they are of makes another, or
// is closed.

#include <optional>
#include <string>
#include <vector>

#include "comm/mpi_counts.hpp"
#include "comm/placements.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/parallel/gradient_reducer.hpp"
#include "lockstep/parallel/step_in_reduction.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 4);

namespace lockstep {
namespace {

using testing::Arrangement;
using testing::arrangements;
using testing::mpi_counts;
using testing::MpiCounts;
using testing::throws;
using testing::world;

std::vector<NamedParameter> parameters() {
  std::vector<NamedParameter> all;
  for (int i = 0; i < 9; ++i) {
    all.emplace_back(Parameter("p" + std::to_string(i), Tensor::zeros({1 + 30000 * (i % 3)})));
  }
  return all;
}

// What is new after use(reducer) and the end of the reducer, in each arrangement. `finished`: no reduction was given up.
template <class Use>
void expect_nothing_left_after(Use use, bool keep_gradients = true, bool finished = true) {
  for (const Arrangement& arrangement : arrangements()) {
    Communicator ranks(world().handle(), arrangement.options);
    ranks.placement();
    const MpiCounts before = mpi_counts;
    {
      std::vector<NamedParameter> all = parameters();
      GradientReducer reducer(all, ranks, {.bucket_bytes = 1000, .keep_gradients = keep_gradients});
      use(reducer, all);
    }
    EXPECT_EQ(mpi_counts.communicators, before.communicators + 2) << arrangement.name;
    EXPECT_EQ(mpi_counts.windows, 0) << arrangement.name;
    EXPECT_EQ(mpi_counts.world_calls, before.world_calls) << arrangement.name;
    EXPECT_EQ(mpi_counts.requests, before.requests) << arrangement.name;
    ranks.close();
    if (finished) {
      EXPECT_EQ(mpi_counts.communicators, before.communicators - 1) << arrangement.name;
    }
  }
}

void mark(GradientReducer& reducer, std::vector<NamedParameter>& all, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    all[i].parameter.mutable_grad().fill(1);
    reducer.mark_ready(all[i].parameter);
  }
}

TEST(GradientReducerResources, rounds_leave_nothing) {
  expect_nothing_left_after([](GradientReducer& reducer, std::vector<NamedParameter>& all) {
    const int before = mpi_counts.requests;
    for (int round = 0; round < 4; ++round) {
      mark(reducer, all, all.size());
      reducer.finish();
      EXPECT_EQ(mpi_counts.requests, before);
    }
  });
}

TEST(GradientReducerResources, a_reducer_that_is_dropped_under_way_leaves_nothing) {
  expect_nothing_left_after(
      [](GradientReducer& reducer, std::vector<NamedParameter>& all) {
        mark(reducer, all, all.size());
        reducer.finish();
        mark(reducer, all, all.size() / 2);
        world().barrier();  // who is still at it would get an error
      },
      true, false);
}

TEST(GradientReducerResources, sharded_steps_leave_nothing) {
  for (const bool in_reduction : {false, true}) {
    const auto use = [&](GradientReducer& reducer, std::vector<NamedParameter>& all) {
      ShardedOptimizer optimizer(all, optim::Adam(), reducer.communicator());
      std::optional<StepInReduction> steps;
      if (in_reduction) steps.emplace(reducer, optimizer);
      const MpiCounts before = mpi_counts;
      for (int round = 0; round < 3; ++round) {
        mark(reducer, all, all.size());
        reducer.finish();
        if (!in_reduction) optimizer.step();
        EXPECT_EQ(mpi_counts.requests, before.requests);
        EXPECT_EQ(mpi_counts.communicators, before.communicators);
      }
      static_cast<void>(optimizer.gather_state_dict());
    };
    expect_nothing_left_after(use, !in_reduction);
  }
}

TEST(GradientReducerResources, a_reducer_that_has_failed_leaves_nothing) {
  if (world().size() == 1) return;
  expect_nothing_left_after(
      [](GradientReducer& reducer, std::vector<NamedParameter>& all) {
        if (world().rank() == 1) reducer.set_weight(-1);
        mark(reducer, all, all.size());
        EXPECT_TRUE(throws<OptionError>([&] { reducer.finish(); }, "weight", "rank 1"));
      },
      true, false);
}

}  // namespace
}  // namespace lockstep
