// Several reductions under way at a time, of several pieces each.

#include "comm/reduction.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "comm/placements.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep::comm {
namespace reduction_test {

using testing::Arrangement;
using testing::arrangements;
using testing::throws;
using testing::world;

float drawn(int rank, std::uint64_t round, std::size_t i) {
  const std::uint64_t number = i * 2654435761U + static_cast<unsigned>(rank) * 977U + round * 31U;
  return static_cast<float>(number % 4093) / 97.0F - 21.0F;
}

double weight_of(int rank) { return 1 + 0.5 * rank; }

double sum_of_weights() {
  double sum = 0;
  for (int rank = 0; rank < world().size(); ++rank) sum += weight_of(rank);
  return sum;
}

// Ranks of a node one after the other, and then the nodes.
float expected(const Arrangement& arrangement, std::uint64_t round, std::size_t i, bool largest,
               bool average) {
  const auto merged = [&](float a, float b) { return largest ? std::max(a, b) : a + b; };
  const auto of = [&](int rank) {
    const float number = drawn(rank, round, i);
    return largest ? number : number * static_cast<float>(weight_of(rank));
  };
  std::vector<float> sums;
  for (const std::vector<int>& node : arrangement.nodes) {
    float sum = of(node[0]);
    for (std::size_t k = 1; k < node.size(); ++k) sum = merged(sum, of(node[k]));
    sums.push_back(sum);
  }
  float all = sums[0];
  for (std::size_t k = 1; k < sums.size(); ++k) all = merged(all, sums[k]);
  return average && !largest ? all / static_cast<float>(sum_of_weights()) : all;
}

// A job of two pieces that are apart: a sum, and the maximum of a line. Sizes are lines.
struct Range {
  Range(std::size_t begin, std::size_t lines, bool average)
      : pieces{{Element::f32, ReduceOp::sum, begin * line_bytes, lines * line_bytes},
               {Element::f32, ReduceOp::max, (begin + lines + 1) * line_bytes, line_bytes}},
        average(average) {}
  std::size_t end() const { return pieces[1].offset / line_bytes + 1; }

  std::vector<Piece> pieces;
  bool average;
};

std::vector<Range> ranges_of(const std::vector<std::size_t>& lines) {
  std::vector<Range> ranges;
  for (const std::size_t count : lines) {
    const std::size_t begin = ranges.empty() ? 0 : ranges.back().end();
    ranges.emplace_back(begin, count, ranges.size() % 2 == 0);
  }
  return ranges;
}

template <class Use>
void for_numbers(const Range& range, Use use) {
  for (const Piece& piece : range.pieces) {
    for (std::size_t i = 0; i < piece.bytes / sizeof(float); ++i) {
      use(piece.offset / sizeof(float) + i, piece.op == ReduceOp::max);
    }
  }
}

// The last range is long enough for several messages each way.
const std::vector<std::size_t> some_lines{1, 9, 300, 3, 3000, 200};

TEST(Reduction, weights_divides_and_leaves_alone_what_is_between_pieces) {
  if (world().size() == 1) return;  // its own numbers are the result, as they are
  std::vector<Range> ranges = ranges_of(some_lines);
  for (const Arrangement& arrangement : arrangements()) {
    const Communicator ranks(world().handle(), arrangement.options);
    for (const std::size_t capacity : {1U, 6U}) {
      Reduction reduction(ranks, ranges.back().end() * line_bytes, capacity);
      auto* own = reinterpret_cast<float*>(reduction.segment());
      const auto* result = reinterpret_cast<const float*>(reduction.result());
      for (std::uint64_t round = 0; round < 2; ++round) {
        for (const Range& range : ranges) {
          for_numbers(range, [&](std::size_t i, bool) { own[i] = drawn(ranks.rank(), round, i); });
          reduction.start({.pieces = range.pieces,
                           .weight = weight_of(ranks.rank()),
                           .average = range.average});
        }
        reduction.wait();
        EXPECT_EQ(reduction.completed(), (round + 1) * ranges.size());
        std::size_t wrong = 0;
        for (const Range& range : ranges) {
          for_numbers(range, [&](std::size_t i, bool largest) {
            if ((i + static_cast<unsigned>(ranks.rank())) % 4 != 0) return;  // in turns, for speed
            const float value = expected(arrangement, round, i, largest, range.average);
            wrong += std::memcmp(&value, &result[i], sizeof(value)) != 0;
          });
        }
        EXPECT_EQ(wrong, 0U) << arrangement.name << ", capacity " << capacity;
        for (const Range& range : ranges) {
          const std::size_t between = range.pieces[1].offset / sizeof(float) - 1;
          EXPECT_EQ(result[between], 0) << arrangement.name;
        }
        ranks.barrier();
      }
    }
  }
}

// Wherever the others are in the ones before, none of them waits for ever.
TEST(Reduction, a_difference_in_one_of_several_under_way_is_an_error_on_all) {
  if (world().size() == 1) return;
  const std::vector<Range> ranges = ranges_of(some_lines);
  for (const Arrangement& arrangement : arrangements()) {
    const Communicator ranks(world().handle(), arrangement.options);
    for (int odd = 0; odd < world().size(); ++odd) {
      for (const std::size_t where : {0U, 3U, 5U}) {
        const Communicator own = ranks.duplicate();  // no message of an earlier one is left there
        Reduction reduction(own, ranges.back().end() * line_bytes, 6);
        const auto reduce = [&] {
          for (std::size_t i = 0; i < ranges.size(); ++i) {
            const std::uint64_t hash = i == where && world().rank() == odd ? 7 : 6;
            reduction.start({.pieces = ranges[i].pieces,
                             .number = static_cast<std::uint32_t>(i),
                             .hash = hash});
          }
          reduction.wait();
        };
        ASSERT_TRUE(throws<StateError>(reduce, "the ranks do not make the same call",
                                       "bucket " + std::to_string(where),
                                       "layout 0000000000000007"))
            << arrangement.name << ", rank " << odd << " in " << where;
      }
    }
  }
}

}  // namespace reduction_test
}  // namespace lockstep::comm
