#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "comm/announcement.hpp"

namespace lockstep::comm {

/// Segments are cut at lines only: two ranks never write to the same line of cache.
constexpr std::size_t line_bytes = 64;

struct alignas(line_bytes) Line {
  std::byte bytes[line_bytes];
};

class Codec;

constexpr std::size_t whole_lines(std::size_t bytes) noexcept {
  return (bytes + line_bytes - 1) / line_bytes * line_bytes;
}

/// A range of every rank's segment, and how to combine it. Offset and size are whole lines.
struct Piece {
  Element element = Element::f32;
  ReduceOp op = ReduceOp::sum;
  std::size_t offset = 0;
  std::size_t bytes = 0;
};

/// Numbers of a job whose squares are summed as they are reduced: of each block of core/squares.hpp
/// by itself, by the rank that writes it.
struct Measured {
  Element element = Element::f32;  ///< or f64
  std::size_t line = 0;            ///< of the job, in which they begin
  std::size_t offset = 0;          ///< in the segment
  std::size_t numbers = 0;
  std::size_t sums = 0;  ///< offset of the blocks' sums in the result, f64
};

struct LineRange {
  std::size_t begin, end;
};

/// Takes what a rank combines, so that there need be no memory for the results of all: a reduce-scatter. What it
/// makes of them goes to other nodes.
class ShardSink {
 public:
  virtual ~ShardSink() = default;
  /// Before anything else of the job: its last piece, of all ranks.
  virtual void begin(std::span<const std::byte> notes) = 0;
  /// Results of this rank's share, those at that offset of the segment.
  virtual void take(std::size_t offset, std::span<const std::byte> results) = 0;
  /// Where this rank has, line by line, what it makes of its share, or wants what another rank makes of that.
  virtual std::span<std::byte> values(int rank) = 0;
  /// What keeps the memory of these values.
  virtual std::shared_ptr<void> memory() const = 0;
};

/// One reduction. What it refers to must stay as it is until the reduction is complete.
struct Job {
  std::span<const Piece> pieces = {};
  std::span<const Measured> measured = {};  ///< none of them empty, in the order of lines
  Call call = Call::reduction;
  std::uint32_t number = 0;       ///< of a bucket or reducer, or the root of a call
  std::uint64_t count = 0;        ///< of the caller's elements, where all are of one kind
  Element element = Element::u8;  ///< of these, in a call that is no reduction
  std::uint64_t hash = 0;         ///< of what the ranks must agree in beside the pieces
  double weight = 1;              ///< of this rank's numbers in sums; may differ from rank to rank
  bool weighted = false;          ///< the numbers are multiplied by it already
  bool average = false;           ///< divide sums by the sum of all weights
  double divisor = 1;             ///< of sums that are no averages
  /// Ranges that are none of the pieces, where there are several nodes. There is always a piece.
  std::span<Codec* const> codecs = {};
  /// Takes the results of the share of this rank, which are those of all pieces but the last and go nowhere
  /// else. No line is in two shares, and nothing is measured.
  ShardSink* sink = nullptr;
  std::span<const LineRange> shares = {};  ///< of each rank

  std::size_t lines() const noexcept {
    std::size_t bytes = 0;
    for (const Piece& piece : pieces) bytes += piece.bytes;
    return bytes / line_bytes;
  }
};

/// Calls use(piece, offset, bytes) for each part of a piece that lies in the lines [begin, end) of a
/// job, which counts the lines of its pieces one after the other; `offset` is in the segment.
template <class Use>
void for_lines(std::span<const Piece> pieces, LineRange lines, Use&& use) {
  std::size_t first = 0;
  for (const Piece& piece : pieces) {
    const std::size_t last = first + piece.bytes / line_bytes;
    const std::size_t from = lines.begin > first ? lines.begin : first;
    const std::size_t to = lines.end < last ? lines.end : last;
    if (from < to) use(piece, piece.offset + (from - first) * line_bytes, (to - from) * line_bytes);
    if (last >= lines.end) return;
    first = last;
  }
}

}  // namespace lockstep::comm
