#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "lockstep/testing/mpi_test.hpp"
#include "parallel/gradient_ring.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace gradient_ring_plan_test {
using Random = std::mt19937_64;

std::size_t draw(Random& random, std::size_t below) {
  return std::uniform_int_distribution<std::size_t>(0, below - 1)(random);
}

TEST(GradientRing, gives_each_line_a_place_in_few_slots) {
  Random random(1);
  for (int seed = 0; seed < 200; ++seed) {
    std::vector<GradientRange> gradients(1 + draw(random, 30));
    std::vector<std::uint32_t> order;
    for (std::uint32_t i = 0; i < gradients.size(); ++i) {
      const std::size_t lines = draw(random, 2) == 0 ? draw(random, 5) : draw(random, 400);
      gradients[i] = {.dtype = draw(random, 2) == 0 ? DType::f32 : DType::f64, .bytes = 64 * lines};
      if (draw(random, 4) != 0) order.push_back(i);
    }
    std::shuffle(order.begin(), order.end(), random);
    const std::size_t bucket_bytes = 1 + draw(random, 20000), most = 3 + draw(random, 60);
    const int ranks = 1 + static_cast<int>(draw(random, 5));
    const GradientRing ring(gradients, bucket_bytes, most, ranks);
    std::vector<Bucket> buckets =
        ring.plan(gradients, order, gradients.size() - order.size(), 1 << 20);
    ASSERT_LE(buckets.size(), most);
    std::vector<std::size_t> block_bytes;
    for (Bucket& bucket : buckets) {
      if (bucket.slice == 0) block_bytes.push_back(0);
      bucket.block = block_bytes.size() - 1;
      if (bucket.slice > 0) continue;
      for (const std::uint32_t item : bucket.items) block_bytes.back() += gradients[item].bytes;
    }
    const auto part = [&](std::size_t block, int rank) {
      const std::size_t lines = block_bytes[block] / 64, n = static_cast<std::size_t>(ranks);
      const auto r = static_cast<std::size_t>(rank);
      return comm::LineRange{lines * r / n, lines * (r + 1) / n};
    };
    ring.place(buckets, gradients, part);
    std::vector<std::vector<int>> seen(gradients.size());
    for (std::size_t i = 0; i < gradients.size(); ++i) seen[i].resize(gradients[i].bytes / 64);
    for (std::size_t b = 0; b < buckets.size(); ++b) {
      const std::size_t slot = b % ring.slots() * ring.slot_bytes();
      std::size_t end = slot;
      for (const GradientPlace& place : buckets[b].places) {
        EXPECT_EQ(place.offset, end);
        end += place.bytes;
        for (std::size_t at = 0; at < place.bytes; at += 64) {
          ++seen[buckets[b].items[place.item]][(place.begin + at) / 64];
        }
      }
      EXPECT_LE(end, slot + ring.slot_bytes());
      std::size_t lines = 0;
      for (const comm::Piece& piece : buckets[b].all.pieces) lines += piece.bytes / 64;
      EXPECT_EQ(lines, (end - slot + buckets[b].all.pieces.back().bytes) / 64);
    }
    for (const std::uint32_t item : order) {
      EXPECT_EQ(std::count(seen[item].begin(), seen[item].end(), 1), std::ssize(seen[item]));
    }
  }
}

}  // namespace gradient_ring_plan_test
}  // namespace lockstep
