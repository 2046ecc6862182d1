#include "lockstep/tensor/memory_pool.hpp"

#include <cstdint>
#include <cstring>
#include <fstream>
#include <thread>
#include <vector>

#include "lockstep/tensor/tensor.hpp"
#include "lockstep/testing/mpi_test.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::memory_pool {
namespace memory_pool_test {

constexpr std::size_t largest = std::size_t{32} << 20;

std::vector<std::size_t> sizes() {
  std::vector<std::size_t> all{0, 1, largest - 1, largest, largest + 1};
  for (std::size_t size = 63; size < largest; size = size * 5 / 4) {
    for (std::size_t near = size - 1; near <= size + 1; ++near) all.push_back(near);
  }
  return all;
}

TEST(MemoryPool, blocks_are_aligned_and_overlap_no_other) {
  for (int round = 0; round < 2; ++round) {  // new ones, and those that were kept
    std::vector<std::byte*> blocks;
    for (const std::size_t size : sizes()) {
      auto* block = static_cast<std::byte*>(allocate(size));
      ASSERT_EQ(reinterpret_cast<std::uintptr_t>(block) % alignment, 0U) << size;
      std::memset(block, static_cast<int>(blocks.size() % 251), size);
      blocks.push_back(block);
    }
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      const std::size_t size = sizes()[i];
      const auto expected = static_cast<std::byte>(i % 251);
      if (size > 0) {
        ASSERT_EQ(blocks[i][0], expected) << size;
        ASSERT_EQ(blocks[i][size - 1], expected) << size;
      }
      release(blocks[i], size);
    }
  }
}

TEST(MemoryPool, what_one_thread_releases_may_be_of_another) {
  std::vector<void*> blocks;
  for (int i = 0; i < 100; ++i) blocks.push_back(allocate(1000));
  std::thread([&] {
    for (void* block : blocks) release(block, 1000);
    Tensor::zeros({250}).fill(1);
  }).join();
  Tensor kept;
  std::thread([&] { kept = Tensor::full({250}, 7); }).join();
  EXPECT_EQ(kept.rows(249, 250).item(), 7);
}

#if !defined(__SANITIZE_ADDRESS__)
TEST(MemoryPool, a_released_block_is_the_next_one_of_its_size) {
  for (const std::size_t size : {std::size_t{1}, std::size_t{1000}, largest}) {
    void* block = allocate(size);
    release(block, size);
    void* again = allocate(size);
    EXPECT_EQ(again, block) << size;
    release(again, size);
  }
}

std::size_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  std::size_t all = 0, resident = 0;
  statm >> all >> resident;
  return resident * 4096;
}

TEST(MemoryPool, gives_back_what_is_beyond_its_limit_and_the_rest_when_its_thread_ends) {
  const std::size_t before = resident_bytes();
  std::thread([&] {
    std::vector<void*> blocks;
    for (int i = 0; i < 12; ++i) {
      blocks.push_back(allocate(largest));
      std::memset(blocks.back(), 1, largest);
    }
    EXPECT_GT(resident_bytes(), before + 11 * largest);
    for (void* block : blocks) release(block, largest);
    EXPECT_GT(resident_bytes(), before + 7 * largest);
    EXPECT_LT(resident_bytes(), before + 9 * largest);
    give_back();
    EXPECT_LT(resident_bytes(), before + largest);
    release(allocate(largest), largest);
  }).join();
  EXPECT_LT(resident_bytes(), before + largest);
}
#endif

}  // namespace memory_pool_test
}  // namespace lockstep::memory_pool
