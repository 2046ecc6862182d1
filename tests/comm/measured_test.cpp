// Sums of squares that a reduction measures, against those of its result.

#include "comm/measured.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "comm/placements.hpp"
#include "comm/reduction.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "tensor/kernels.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep::comm {
namespace measured_test {

using testing::Arrangement;
using testing::arrangements;
using testing::world;

// Around one block, two, and several messages, in numbers of f32.
const std::vector<std::size_t> some_sizes{1,   2,   15,  16,  17,   127,  128,  129,
                                          255, 256, 257, 511, 4096, 5000, 16383};

// A job of arrays that lie one after the other, with gaps here and there, and a last piece that is
// not measured, as the notes of a bucket are.
struct Layout {
  explicit Layout(std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::size_t offset = 0, line = 0;
    const std::size_t count = 1 + random() % 12;
    for (std::size_t i = 0; i < count; ++i) {
      const Element element = random() % 3 == 0 ? Element::f64 : Element::f32;
      const std::size_t numbers = some_sizes[random() % some_sizes.size()];
      const std::size_t bytes = whole_lines(numbers * item_size(element));
      if (random() % 3 == 0) offset += line_bytes;
      measured.push_back({.element = element, .line = line, .offset = offset, .numbers = numbers});
      if (!pieces.empty() && pieces.back().element == element &&
          pieces.back().offset + pieces.back().bytes == offset) {
        pieces.back().bytes += bytes;
      } else {
        pieces.push_back({element, ReduceOp::sum, offset, bytes});
      }
      offset += bytes;
      line += bytes / line_bytes;
    }
    pieces.push_back({Element::u8, ReduceOp::max, offset, (1 + random() % 50) * line_bytes});
    offset += pieces.back().bytes;
    lines = line + pieces.back().bytes / line_bytes;
    for (Measured& one : measured) {
      one.sums = offset;
      offset += squares_blocks(one.numbers * item_size(one.element)) * sizeof(double);
    }
    bytes = whole_lines(offset);
  }

  std::vector<Piece> pieces;
  std::vector<Measured> measured;
  std::size_t lines = 0, bytes = 0;
};

template <class T>
void draw(const Measured& one, std::byte* segment, std::uint64_t seed) {
  std::minstd_rand random(static_cast<std::uint32_t>(seed));
  auto* numbers = reinterpret_cast<T*>(segment + one.offset);
  for (std::size_t i = 0; i < one.numbers; ++i) {
    numbers[i] = static_cast<T>(random()) / T{1e9} - T{1};
  }
  // What fills the last line is nobody's.
  const std::size_t end = whole_lines(one.numbers * sizeof(T)) / sizeof(T);
  std::fill(numbers + one.numbers, numbers + end, std::numeric_limits<T>::quiet_NaN());
}

double squares_of(const Measured& one, const std::byte* result) {
  const auto n = static_cast<std::int64_t>(one.numbers);
  return one.element == Element::f32
             ? kernels::sum_squares(n, reinterpret_cast<const float*>(result + one.offset))
             : kernels::sum_squares(n, reinterpret_cast<const double*>(result + one.offset));
}

double measured_of(const Measured& one, const std::byte* result) {
  double total = 0;
  for (std::size_t k = 0; k < squares_blocks(one.numbers * item_size(one.element)); ++k) {
    double sum = 0;
    std::memcpy(&sum, result + one.sums + k * sizeof(double), sizeof(sum));
    total += sum;
  }
  return total;
}

std::vector<Layout> layouts() {
  std::vector<Layout> all;
  for (std::uint64_t seed = 1; seed <= 4; ++seed) all.emplace_back(seed);
  return all;
}

// Reduces all layouts, one after the other in the same memory.
void expect_measured(const Communicator& ranks, std::int64_t parts, const std::string& what) {
  const std::vector<Layout> all = layouts();
  std::size_t bytes = 0;
  for (const Layout& layout : all) bytes = std::max(bytes, layout.bytes);
  const Parts tree{.count = parts, .slot_bytes = bytes};
  const auto own = tree.of(ranks.rank(), ranks.size());
  const std::size_t slots = parts == 0 ? 1 : subtrees_of(own.begin, own.end).size();
  Reduction reduction(ranks, slots * bytes, 1, tree);
  std::uint64_t seed = static_cast<std::uint64_t>(977 * ranks.rank());
  for (std::size_t k = 0; k < all.size(); ++k) {
    const Layout& layout = all[k];
    for (std::size_t slot = 0; slot < slots; ++slot) {
      for (const Measured& one : layout.measured) {
        std::byte* segment = reduction.segment() + slot * bytes;
        one.element == Element::f32 ? draw<float>(one, segment, ++seed)
                                    : draw<double>(one, segment, ++seed);
      }
    }
    // Divided, so that a rank that is alone has to pass over its numbers as well.
    reduction.start({.pieces = layout.pieces,
                     .measured = layout.measured,
                     .weight = 1.5 + ranks.rank(),
                     .weighted = parts > 0,
                     .divisor = 3});
    reduction.wait();
    for (const Measured& one : layout.measured) {
      const double expected = squares_of(one, reduction.result());
      EXPECT_GT(expected, 0) << what;
      EXPECT_EQ(measured_of(one, reduction.result()), expected)
          << what << ", layout " << k << ", " << one.numbers << " numbers at line " << one.line;
    }
  }
}

TEST(Measured, squares_are_those_of_the_result_on_all_ranks_and_nodes) {
  for (const Arrangement& arrangement : arrangements()) {
    const Communicator ranks(world().handle(), arrangement.options);
    // With many parts messages have several sums of each number, and so few of them.
    for (const std::int64_t parts : {0, 64}) {
      expect_measured(ranks, parts, arrangement.name + ", " + std::to_string(parts) + " parts");
      if (::testing::Test::HasFailure()) return;
    }
  }
}

TEST(Measured, shares_are_cut_between_blocks_and_are_all_lines) {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    const Layout layout(seed);
    for (const std::size_t shares : {1U, 2U, 3U, 7U, 64U}) {
      std::size_t line = 0;
      for (std::size_t share = 0; share < shares; ++share) {
        const LineRange range = share_of(layout.measured, layout.lines, share, shares);
        if (range.begin == range.end) continue;
        EXPECT_EQ(range.begin, line) << seed;
        EXPECT_LE(range.end - range.begin, layout.lines / shares + block_lines + 8) << seed;
        line = range.end;
        for (const Measured& one : layout.measured) {
          const std::size_t of_it = one.numbers * item_size(one.element);
          if (line <= one.line || line * line_bytes >= one.line * line_bytes + of_it) continue;
          EXPECT_EQ((line - one.line) % block_lines, 0U) << seed;
        }
      }
      EXPECT_EQ(line, layout.lines) << seed;
    }
  }
}

TEST(Measured, a_job_without_measured_numbers_is_cut_at_any_line) {
  EXPECT_EQ(cut_at({}, 37, 100), 37U);
  EXPECT_EQ(cut_at({}, 137, 100), 100U);
  EXPECT_EQ(share_of({}, 99, 1, 3).begin, 33U);
  EXPECT_EQ(share_of({}, 99, 1, 3).end, 66U);
}

}  // namespace measured_test
}  // namespace lockstep::comm
