#include "comm/chunk_broadcast.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <thread>
#include <vector>

#include "comm/placements.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace chunk_broadcast_test {

using testing::Arrangement;
using testing::arrangements;
using testing::throws;
using testing::world;

constexpr std::uint64_t chunk = comm::broadcast_chunk_bytes;
// More than are under way at a time.
constexpr std::uint64_t many = 20;

// One number all over a chunk, and another one at its end.
void fill_bytes(std::uint64_t begin, std::span<std::byte> bytes) {
  const auto number = static_cast<std::byte>(begin / chunk + 1);
  std::fill(bytes.begin(), bytes.end(), number);
  bytes.back() = ~number;
}

bool are_right(std::uint64_t begin, std::span<const std::byte> bytes) {
  static std::vector<std::byte> expected(chunk);
  fill_bytes(begin, std::span(expected).first(bytes.size()));
  return std::memcmp(bytes.data(), expected.data(), bytes.size()) == 0;
}

// What a rank has used.
struct Used {
  std::uint64_t end = 0;
  bool in_order = true, right = true;

  void operator()(std::uint64_t begin, std::span<const std::byte> bytes) {
    in_order = in_order && begin == end;
    right = right && are_right(begin, bytes);
    end = begin + bytes.size();
  }
};

void expect_all(const Used& used, std::uint64_t bytes) {
  EXPECT_EQ(used.end, bytes);
  EXPECT_TRUE(used.in_order);
  EXPECT_TRUE(used.right);
}

TEST(ChunkBroadcast, brings_every_rank_all_bytes_of_rank_0_in_order) {
  for (const Arrangement& arrangement : arrangements()) {
    SCOPED_TRACE(arrangement.name);
    const Communicator ranks(world().handle(), arrangement.options);
    for (const std::uint64_t bytes :
         {std::uint64_t{0}, std::uint64_t{1}, chunk - 1, chunk, chunk + 1, many * chunk + 17}) {
      SCOPED_TRACE(bytes);
      Used used;
      comm::broadcast_chunks(ranks, bytes,
                             ranks.rank() == 0 ? comm::FillChunk(fill_bytes) : comm::FillChunk(),
                             std::ref(used));
      expect_all(used, bytes);
    }
  }
}

TEST(ChunkBroadcast, fills_each_chunk_once_on_some_rank_of_the_first_node) {
  for (const Arrangement& arrangement : arrangements()) {
    SCOPED_TRACE(arrangement.name);
    const Communicator ranks(world().handle(), arrangement.options);
    std::vector<std::int64_t> filled(many);
    Used used;
    comm::broadcast_chunks(
        ranks, many * chunk,
        [&filled](std::uint64_t begin, std::span<std::byte> bytes) {
          ++filled[begin / chunk];
          fill_bytes(begin, bytes);
        },
        std::ref(used));
    expect_all(used, many * chunk);
    const bool is_neighbour =
        arrangement.options.share_memory ? ranks.placement().node == 0 : ranks.rank() == 0;
    if (!is_neighbour) {
      EXPECT_EQ(filled, std::vector<std::int64_t>(many));
    }
    ranks.all_reduce(std::span<std::int64_t>(filled));
    EXPECT_EQ(filled, std::vector<std::int64_t>(many, 1));
  }
}

TEST(ChunkBroadcast, waits_for_a_rank_that_is_slow) {
  for (const Arrangement& arrangement : arrangements()) {
    SCOPED_TRACE(arrangement.name);
    const Communicator ranks(world().handle(), arrangement.options);
    for (const int slow : {0, ranks.size() - 1}) {
      Used used;
      comm::broadcast_chunks(ranks, many * chunk, fill_bytes,
                             [&](std::uint64_t begin, std::span<const std::byte> bytes) {
                               if (ranks.rank() == slow) {
                                 std::this_thread::sleep_for(std::chrono::milliseconds(1));
                               }
                               used(begin, bytes);
                             });
      expect_all(used, many * chunk);
    }
  }
}

TEST(ChunkBroadcast, throws_on_all_ranks_what_a_fill_throws_and_uses_no_more) {
  for (const Arrangement& arrangement : arrangements()) {
    SCOPED_TRACE(arrangement.name);
    const Communicator ranks(world().handle(), arrangement.options);
    for (const std::uint64_t failing : {std::uint64_t{0}, many / 2, many - 1}) {
      Used used;
      const comm::FillChunk fill = [failing](std::uint64_t begin, std::span<std::byte> bytes) {
        if (begin == failing * chunk) throw CheckpointError("the disk is gone");
        fill_bytes(begin, bytes);
      };
      EXPECT_TRUE(throws<CheckpointError>(
          [&] { comm::broadcast_chunks(ranks, many * chunk, fill, std::ref(used)); },
          "the disk is gone (rank "));
      expect_all(used, failing * chunk);
      EXPECT_EQ(ranks.all_reduce(std::int64_t{1}), ranks.size());
    }
  }
}

TEST(ChunkBroadcast, of_other_lengths_on_other_ranks_is_an_error_on_all) {
  if (world().size() == 1) return;
  const Communicator ranks(world().handle());
  const std::uint64_t bytes = ranks.rank() == 0 ? chunk : 2 * chunk;
  Used used;
  EXPECT_TRUE(throws<StateError>(
      [&] { comm::broadcast_chunks(ranks, bytes, fill_bytes, std::ref(used)); }, "broadcast"));
  EXPECT_EQ(used.end, 0u);
}

}  // namespace chunk_broadcast_test
}  // namespace lockstep
