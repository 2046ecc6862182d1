#include "parallel/shard_plan.hpp"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "lockstep/testing/mpi_test.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace shard_plan_test {
std::uint64_t next(std::uint64_t& state) {
  state = state * 6364136223846793005U + 1442695040888963407U;
  return state >> 33;
}

std::vector<ShardItem> drawn_items(std::uint64_t seed, bool some_whole) {
  std::vector<ShardItem> items(1 + next(seed) % 20);
  for (ShardItem& item : items) {
    const auto most = std::int64_t{1} << (next(seed) % 14);
    item = {.dtype = next(seed) % 2 == 0 ? DType::f32 : DType::f64,
            .numbers = static_cast<std::int64_t>(next(seed)) % most,
            .whole = some_whole && next(seed) % 2 == 0};
  }
  return items;
}

// Some of the items that are cut, in blocks; none for every third seed.
std::vector<std::vector<std::size_t>> drawn_blocks(std::uint64_t seed,
                                                   const std::vector<ShardItem>& items) {
  std::vector<std::vector<std::size_t>> blocks;
  if (seed % 3 == 0) return blocks;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (items[i].whole || next(seed) % 4 == 0) continue;
    if (blocks.empty() || next(seed) % 2 == 0) blocks.emplace_back();
    blocks.back().push_back(i);
  }
  return blocks;
}

std::size_t bytes_of(const ShardItem& item) {
  return static_cast<std::size_t>(item.numbers) * item_size(item.dtype);
}

TEST(ShardPlan, gives_each_number_to_one_rank_and_each_byte_to_its_owner) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    SCOPED_TRACE(seed);
    const std::vector<ShardItem> items = drawn_items(seed, seed % 2 == 1);
    const int ranks = 1 + static_cast<int>(seed % 7);
    const auto blocks = drawn_blocks(seed, items);
    const ShardPlan plan(items, ranks, blocks);
    std::vector<int> owners(plan.bytes(), -1);
    const auto ranges = plan.ranges();
    for (std::size_t rank = 0; rank < ranges.size(); ++rank) {
      for (const auto& [begin, end] : ranges[rank]) {
        for (std::size_t byte = begin; byte < end; ++byte) {
          ASSERT_EQ(owners[byte], -1);
          owners[byte] = static_cast<int>(rank);
        }
      }
    }
    EXPECT_EQ(std::count(owners.begin(), owners.end(), -1), 0);
    std::vector<bool> used(plan.bytes());
    for (std::size_t i = 0; i < items.size(); ++i) {
      EXPECT_EQ(plan.offset(i) % 64, 0U);
      const std::size_t size = item_size(items[i].dtype);
      std::int64_t total = 0;
      std::vector<int> owner_of(static_cast<std::size_t>(items[i].numbers), -1);
      for (int rank = 0; rank < ranks; ++rank) {
        const ShardPlan::Share share = plan.share(i, rank);
        total += share.size;
        for (std::int64_t k = share.begin; k < share.begin + share.size; ++k) {
          owner_of[static_cast<std::size_t>(k)] = rank;
        }
      }
      EXPECT_EQ(total, items[i].numbers);
      for (std::size_t byte = 0; byte < bytes_of(items[i]); ++byte) {
        ASSERT_FALSE(used[plan.offset(i) + byte]);
        used[plan.offset(i) + byte] = true;
        ASSERT_EQ(owners[plan.offset(i) + byte], owner_of[byte / size]);
      }
      const auto of_item = plan.ranges(i);
      for (int rank = 0; rank < ranks; ++rank) {
        std::size_t bytes = 0;
        for (const auto& [begin, end] : of_item[static_cast<std::size_t>(rank)]) {
          EXPECT_GE(begin, plan.offset(i));
          bytes += end - begin;
        }
        EXPECT_EQ(bytes, static_cast<std::size_t>(plan.share(i, rank).size) * size);
      }
    }
  }
}

TEST(ShardPlan, cuts_blocks_to_within_a_line_of_all) {
  for (std::uint64_t seed = 0; seed < 500; ++seed) {
    const int ranks = 2 + static_cast<int>(seed % 9);
    const std::vector<ShardItem> items = drawn_items(seed, false);
    const auto blocks = drawn_blocks(seed, items);
    const ShardPlan plan(items, ranks, blocks);
    std::size_t least = SIZE_MAX, most = 0;
    for (const auto& of_rank : plan.ranges()) {
      std::size_t bytes = 0;
      for (const auto& [begin, end] : of_rank) bytes += end - begin;
      least = std::min(least, bytes);
      most = std::max(most, bytes);
    }
    EXPECT_LE(most - least, 64U) << seed;
    for (std::size_t block = 0; block < blocks.size(); ++block) {
      std::size_t end = plan.part(block, 0).begin;
      for (int rank = 0; rank < ranks; ++rank) {
        EXPECT_EQ(plan.part(block, rank).begin, end);
        end = plan.part(block, rank).end;
        EXPECT_GE(end, plan.part(block, rank).begin);
      }
    }
  }
}

TEST(ShardPlan, cuts_each_dtype_to_within_a_line) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const int ranks = 2 + static_cast<int>(seed % 6);
    const ShardPlan plan(drawn_items(seed, false), ranks);
    for (const DType dtype : {DType::f32, DType::f64}) {
      std::vector<ShardItem> items = drawn_items(seed, false);
      std::erase_if(items, [dtype](const ShardItem& item) { return item.dtype != dtype; });
      std::size_t least = SIZE_MAX, most = 0;
      for (const auto& of_rank : ShardPlan(items, ranks).ranges()) {
        std::size_t bytes = 0;
        for (const auto& [begin, end] : of_rank) bytes += end - begin;
        least = std::min(least, bytes);
        most = std::max(most, bytes);
      }
      EXPECT_LE(most - least, 64U);
    }
  }
}

// By hand: 5 to rank 0, 4 to rank 1, 3 to rank 1 that has less, 3 to rank 0, 3 to rank 1.
TEST(ShardPlan, gives_whole_parameters_the_largest_first_to_who_has_least) {
  std::vector<ShardItem> items;
  for (const std::int64_t lines : {3, 5, 3, 4, 3}) {
    items.push_back({.dtype = DType::f32, .numbers = 16 * lines, .whole = true});
  }
  const ShardPlan plan(items, 2);
  std::vector<int> owners;
  for (std::size_t i = 0; i < items.size(); ++i) {
    owners.push_back(plan.share(i, 0).size > 0 ? 0 : 1);
  }
  EXPECT_EQ(owners, (std::vector<int>{1, 0, 0, 1, 1}));
}

}  // namespace shard_plan_test
}  // namespace lockstep
