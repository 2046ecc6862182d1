#include "lockstep/comm/node_memory.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>

#include "comm/placements.hpp"
#include "comm/resources.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/log.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace node_memory_test {

using testing::Arrangement;
using testing::arrangements;
using testing::descriptors;
using testing::Log;
using testing::names_left;
using testing::throws;
using testing::world;

bool is_zero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(),
                     [](std::byte byte) { return byte == std::byte{}; });
}

std::byte mark(int rank) { return static_cast<std::byte>(17 * (rank + 1)); }

void fill(std::span<std::byte> bytes, std::byte with) {
  std::fill(bytes.begin(), bytes.end(), with);
}

bool is_filled(std::span<const std::byte> bytes, std::byte with) {
  return std::all_of(bytes.begin(), bytes.end(), [&](std::byte byte) { return byte == with; });
}

TEST(NodeMemory, is_zero_at_first_and_what_a_rank_writes_its_neighbours_read) {
  for (const Arrangement& arrangement : arrangements()) {
    const Communicator ranks(world().handle(), arrangement.options);
    for (const std::size_t size : {1U, 4096U, 100001U}) {
      const NodeMemory memory(ranks, size, 2 * size);
      const int count = static_cast<int>(memory.placement().neighbours().size());
      for (int place = 0; place < count; ++place) {
        EXPECT_GE(memory.segment(place).size(), size);
        EXPECT_TRUE(is_zero(memory.segment(place)));
      }
      EXPECT_GE(memory.common().size(), 2 * size);
      EXPECT_TRUE(is_zero(memory.common()));
      ranks.barrier();
      fill(memory.own(), mark(world().rank()));
      // Each neighbour writes another byte of the common part.
      memory.common()[static_cast<std::size_t>(memory.placement().node_rank)] =
          mark(world().rank());
      ranks.barrier();
      for (int place = 0; place < count; ++place) {
        const int rank = memory.placement().neighbours()[static_cast<std::size_t>(place)];
        EXPECT_TRUE(is_filled(memory.segment(place), mark(rank))) << arrangement.name;
        EXPECT_EQ(memory.common()[static_cast<std::size_t>(place)], mark(rank));
      }
      ranks.barrier();
    }
  }
}

TEST(NodeMemory, parts_begin_at_pages_and_do_not_overlap) {
  for (const Arrangement& arrangement : arrangements()) {
    const Communicator ranks(world().handle(), arrangement.options);
    const NodeMemory memory(ranks, 5000, 3000);
    std::vector<std::span<std::byte>> parts;
    for (std::size_t i = 0; i < memory.placement().neighbours().size(); ++i) {
      parts.push_back(memory.segment(static_cast<int>(i)));
    }
    parts.push_back(memory.common());
    for (std::size_t i = 0; i < parts.size(); ++i) {
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(parts[i].data()) % 4096, 0U);
      for (std::size_t k = 0; k < i; ++k) {
        EXPECT_TRUE(parts[k].data() + parts[k].size() <= parts[i].data() ||
                    parts[i].data() + parts[i].size() <= parts[k].data());
      }
    }
    EXPECT_EQ(memory.own().data(), memory.segment(memory.placement().node_rank).data());
  }
}

TEST(NodeMemory, is_that_of_the_nodes_of_its_communicator_or_of_this_rank_alone) {
  for (const Arrangement& arrangement : arrangements()) {
    const Log log;
    const Communicator ranks(world().handle(), arrangement.options);
    const NodeMemory memory(ranks, 100, 100);
    EXPECT_EQ(memory.shared(), arrangement.options.share_memory) << arrangement.name;
    const Placement& placement = memory.placement();
    EXPECT_EQ(placement.neighbours()[static_cast<std::size_t>(placement.node_rank)], ranks.rank());
    if (memory.shared()) {
      EXPECT_EQ(placement.nodes, arrangement.nodes);
    } else {
      EXPECT_EQ(placement.nodes.size(), static_cast<std::size_t>(ranks.size()));
      EXPECT_EQ(placement.neighbours(), std::vector{ranks.rank()});
    }
    // Memory that nobody wants shared is nothing to warn of.
    EXPECT_TRUE(log.lines().empty()) << log.lines().front();
  }
}

TEST(NodeMemory, may_have_no_bytes) {
  for (const Arrangement& arrangement : arrangements()) {
    const Communicator ranks(world().handle(), arrangement.options);
    const NodeMemory memory(ranks, 0, 0);
    EXPECT_TRUE(memory.own().empty());
    EXPECT_EQ(memory.shared(), arrangement.options.share_memory);
    const NodeMemory common(ranks, 0, 10000);
    EXPECT_TRUE(is_zero(common.common()));
    const NodeMemory segments(ranks, 10000, 0);
    fill(segments.own(), mark(1));
  }
}

TEST(NodeMemory, has_no_name_and_no_descriptor_once_it_is_made) {
  for (const Arrangement& arrangement : arrangements()) {
    const Communicator ranks(world().handle(), arrangement.options);
    ranks.placement();
    world().barrier();
    const std::size_t open = descriptors();
    const NodeMemory memory(ranks, 10000, 100);
    world().barrier();
    EXPECT_EQ(names_left(), 0U);
    EXPECT_EQ(descriptors(), open);
    world().barrier();
  }
}

TEST(NodeMemory, lives_as_long_as_a_copy_of_its_owner) {
  for (const Arrangement& arrangement : arrangements()) {
    Communicator ranks(world().handle(), arrangement.options);
    std::optional<NodeMemory> memory(std::in_place, ranks, 10000, 10000);
    const std::size_t neighbours = memory->placement().neighbours().size();
    const int next = static_cast<int>(
        (static_cast<std::size_t>(memory->placement().node_rank) + 1) % neighbours);
    const std::span<std::byte> own = memory->own(), other = memory->segment(next);
    const int other_rank = memory->placement().neighbours()[static_cast<std::size_t>(next)];
    const std::shared_ptr<void> owner = memory->owner();
    const bool keeps = world().rank() != 0;
    memory.reset();
    ranks.close();
    fill(own, mark(world().rank()));
    world().barrier();
    EXPECT_TRUE(is_filled(other, mark(other_rank)));
    world().barrier();
    // Who lets go does no harm to the others.
    if (!keeps) const_cast<std::shared_ptr<void>&>(owner).reset();
    world().barrier();
    if (keeps) {
      EXPECT_TRUE(is_filled(other, mark(other_rank)));
    }
  }
}

// Unmaps what nobody keeps: else a process would run out of addresses.
TEST(NodeMemory, is_given_back) {
  const Communicator ranks(world().handle());
  constexpr std::size_t size = std::size_t{1} << 20;
  NodeMemory(ranks, size, size);
  const std::size_t before = testing::address_space();
  for (int i = 0; i < 50; ++i) NodeMemory(ranks, size, size);
  EXPECT_LT(testing::address_space(), before + 20 * size);
}

TEST(NodeMemory, that_nobody_can_have_is_an_error_on_all_ranks_that_leaves_nothing) {
  // The last ones would be short, or nothing at all, if they wrapped around.
  const std::size_t most = std::numeric_limits<std::size_t>::max();
  for (const Arrangement& arrangement : arrangements()) {
    const Communicator ranks(world().handle(), arrangement.options);
    ranks.placement();
    for (const std::size_t size :
         {std::size_t{1} << 46, most / 2, most / 2 + 4097, most - 10000, most}) {
      for (const bool of_segment : {true, false}) {
        const Log log;
        world().barrier();
        const std::size_t open = descriptors();
        bool collective = false;
        const auto make = [&] {
          try {
            NodeMemory(ranks, of_segment ? size : 10, of_segment ? 10 : size);
          } catch (const Error& error) {
            collective = error.collective();
            throw;
          }
        };
        ASSERT_TRUE(throws<Error>(make, "no memory of ", " bytes")) << size;
        EXPECT_TRUE(collective);
        EXPECT_EQ(descriptors(), open);
        world().barrier();
        EXPECT_EQ(names_left(), 0U);
        world().barrier();
      }
    }
  }
}

}  // namespace node_memory_test
}  // namespace lockstep
