// What the library makes of MPI, it frees: in close() or by the next duplicate() what no rank has any more, and the
// rest in MPI_Finalize.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/mpi_counts.hpp"
#include "comm/placements.hpp"
#include "lockstep/comm/node_memory.hpp"
#include "lockstep/comm/shared_buffer.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace {

using testing::Arrangement;
using testing::arrangements;
using testing::mpi_counts;
using testing::MpiCounts;
using testing::throws;
using testing::world;

// That since `before` so many communicators are new and alive, and nothing else is.
void expect_new(const MpiCounts& before, int communicators, const std::string& where) {
  EXPECT_EQ(mpi_counts.communicators, before.communicators + communicators) << where;
  EXPECT_EQ(mpi_counts.requests, before.requests) << where;
  EXPECT_EQ(mpi_counts.windows, 0) << where;
  EXPECT_EQ(mpi_counts.keyvals, before.keyvals) << where;
  EXPECT_EQ(mpi_counts.world_calls, before.world_calls) << where;
}

// Calls use(ranks) with a communicator of each arrangement that knows its placement already.
template <class Use>
void for_each_arrangement(Use use) {
  for (const Arrangement& arrangement : arrangements()) {
    Communicator ranks(world().handle(), arrangement.options);
    ranks.placement();
    use(ranks, arrangement);
    ranks.close();
  }
}

TEST(MpiResources, a_closed_communicator_leaves_nothing) {
  for (const Arrangement& arrangement : arrangements()) {
    const MpiCounts before = mpi_counts;
    Communicator ranks(world().handle(), arrangement.options);
    expect_new(before, 1, arrangement.name);
    ranks.placement();
    ranks.all_reduce(1.0);
    std::vector<float> more(70000, 1.0F);
    ranks.all_reduce(std::span<float>(more));
    std::string text = "text";
    ranks.broadcast(text);
    ranks.gather(text);
    ranks.agree([] {});
    expect_new(before, 1, arrangement.name);
    Communicator other = ranks.duplicate();
    other.all_reduce(1.0);
    expect_new(before, 2, arrangement.name);
    other.close();
    ranks.close();
    expect_new(before, 0, arrangement.name);
  }
}

TEST(MpiResources, only_the_duplication_is_a_call_on_the_callers_communicator) {
  const MpiCounts before = mpi_counts;
  Communicator ranks(MPI_COMM_WORLD);
  EXPECT_EQ(mpi_counts.world_calls, before.world_calls + 1);
  SharedBuffer<float>(ranks, 100).all_reduce();
  ranks.all_reduce(1.0);
  ranks.close();
  EXPECT_EQ(mpi_counts.world_calls, before.world_calls + 1);
}

TEST(MpiResources, a_communicator_that_is_dropped_is_kept_until_the_end) {
  const MpiCounts before = mpi_counts;
  for (int i = 0; i < 5; ++i) Communicator(world().handle()).all_reduce(1.0);
  expect_new(before, 5, "");
}

TEST(MpiResources, duplicates_that_no_rank_has_are_freed_by_the_next) {
  for_each_arrangement([](const Communicator& ranks, const Arrangement& arrangement) {
    ranks.all_reduce(1.0);
    const MpiCounts before = mpi_counts;
    const Communicator kept = ranks.duplicate();
    for (int i = 0; i < 200; ++i) ranks.duplicate().all_reduce(1.0);
    expect_new(before, 2, arrangement.name);
    for (int i = 0; i < 3; ++i) kept.duplicate().all_reduce(1.0);
    expect_new(before, 3, arrangement.name);
    EXPECT_EQ(kept.all_reduce(std::int64_t{1}), kept.size());
  });
}

TEST(MpiResources, more_than_are_asked_after_at_a_time) {
  Communicator ranks(world().handle());
  const MpiCounts before = mpi_counts;
  std::vector<Communicator> all;
  for (int i = 0; i < 150; ++i) all.push_back(ranks.duplicate());
  expect_new(before, 150, "");
  for (std::size_t i = 0; i < all.size(); i += 3) all[i] = ranks;
  all.push_back(ranks.duplicate());
  expect_new(before, 101, "");
  for (const Communicator& one : all) EXPECT_EQ(one.all_reduce(std::int64_t{1}), one.size());
  all.clear();
  ranks.close();
  expect_new(before, -1, "");
}

TEST(MpiResources, one_that_a_rank_still_has_is_not_freed) {
  if (world().size() == 1) return;
  for_each_arrangement([](const Communicator& ranks, const Arrangement& arrangement) {
    const MpiCounts before = mpi_counts;
    std::optional<Communicator> one = ranks.duplicate();
    one->all_reduce(1.0);
    if (world().rank() != 1) one.reset();
    std::optional<Communicator> two = ranks.duplicate();
    expect_new(before, 2, arrangement.name);
    one.reset();
    two.reset();
    ranks.duplicate();
    expect_new(before, 1, arrangement.name);
  });
}

TEST(MpiResources, what_was_closed_is_not_freed_again) {
  Communicator ranks(world().handle());
  const MpiCounts before = mpi_counts;
  Communicator one = ranks.duplicate();
  Communicator two = ranks.duplicate();
  one.close();
  ranks.duplicate();
  expect_new(before, 2, "");
  ranks.close();  // two is still there
  expect_new(before, 0, "");
  EXPECT_EQ(two.all_reduce(std::int64_t{1}), two.size());
  two.close();
  expect_new(before, -1, "");
}

TEST(MpiResources, one_whose_parent_has_gone_is_kept_until_the_end) {
  const MpiCounts before = mpi_counts;
  std::optional<Communicator> ranks(world().handle());
  std::optional<Communicator> one = ranks->duplicate();
  ranks.reset();
  EXPECT_EQ(one->all_reduce(std::int64_t{1}), one->size());
  one.reset();
  expect_new(before, 2, "");
}

TEST(MpiResources, node_memory_needs_none) {
  for_each_arrangement([](const Communicator& ranks, const Arrangement& arrangement) {
    const MpiCounts before = mpi_counts;
    {
      const NodeMemory memory(ranks, 10000, 100);
      expect_new(before, 0, arrangement.name);
    }
    EXPECT_TRUE(throws<Error>([&] { NodeMemory(ranks, std::size_t{1} << 46, 0); }, "no memory"));
    expect_new(before, 0, arrangement.name);
  });
}

TEST(MpiResources, a_buffer_has_one_communicator_and_no_request_when_it_is_reduced) {
  for_each_arrangement([](const Communicator& ranks, const Arrangement& arrangement) {
    const MpiCounts before = mpi_counts;
    for (const std::size_t size : {1U, 1000U, 300000U}) {
      SharedBuffer<float> buffer(ranks, size);
      for (int i = 0; i < 3; ++i) {
        buffer.all_reduce();
        EXPECT_EQ(mpi_counts.requests, before.requests) << arrangement.name;
      }
      expect_new(before, 1, arrangement.name);
    }
  });
}

TEST(MpiResources, a_node_alone_sends_no_message) {
  for_each_arrangement([](const Communicator& ranks, const Arrangement& arrangement) {
    SharedBuffer<float> buffer(ranks, 10000);
    const int before = mpi_counts.messages;
    buffer.all_reduce();
    const bool alone = arrangement.nodes.size() == 1 && arrangement.options.share_memory;
    if (alone || world().size() == 1) {
      EXPECT_EQ(mpi_counts.messages, before);
    } else if (!arrangement.options.share_memory) {
      EXPECT_GT(mpi_counts.messages, before);
    }
  });
}

TEST(MpiResources, buffers_that_are_dropped_under_way_leave_no_request) {
  for_each_arrangement([](const Communicator& ranks, const Arrangement& arrangement) {
    const MpiCounts before = mpi_counts;
    {
      std::vector<SharedBuffer<double>> buffers;
      for (int i = 0; i < 3; ++i) buffers.emplace_back(ranks, 200000);
      for (SharedBuffer<double>& buffer : buffers) buffer.start();
      buffers[1].test();
    }
    expect_new(before, 3, arrangement.name);
  });
}

TEST(MpiResources, nor_do_those_that_have_failed) {
  if (world().size() == 1) return;
  for_each_arrangement([](const Communicator& ranks, const Arrangement& arrangement) {
    const MpiCounts before = mpi_counts;
    {
      SharedBuffer<double> buffer(ranks, 200000);
      const ReduceOp op = world().rank() == 0 ? ReduceOp::max : ReduceOp::sum;
      EXPECT_TRUE(throws<StateError>([&] { buffer.all_reduce(op); }, "do not make the same call"))
          << arrangement.name;
    }
    ranks.duplicate();  // frees it not, since messages of what has failed may still come
    expect_new(before, 2, arrangement.name);
  });
}

}  // namespace
}  // namespace lockstep
