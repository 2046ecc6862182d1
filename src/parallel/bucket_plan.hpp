#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "comm/job.hpp"
#include "lockstep/core/dtype.hpp"

namespace lockstep {

/// Where a parameter's gradient lies in the segment of each rank, in bytes; whole lines.
struct GradientRange {
  DType dtype = DType::f32;
  std::size_t offset = 0;
  std::size_t bytes = 0;
  std::size_t numbers = 0;  ///< without those that fill the last line
  std::size_t squares = 0;  ///< offset of the sums of the squares of each block
};

/// What a Job reduces.
struct PieceList {
  std::vector<comm::Piece> pieces;
  std::vector<comm::Measured> measured;
};

/// Where whole lines of a bucket's gradient lie in the segment.
struct GradientPlace {
  std::size_t item = 0;    ///< of the bucket's
  std::size_t offset = 0;  ///< in the segment
  std::size_t begin = 0;   ///< bytes of the gradient before them
  std::size_t bytes = 0;
};

/// What is reduced in one go: some gradients, or a slice of one, and the ranks' notes on these.
struct Bucket {
  std::vector<std::uint32_t> items;
  PieceList all;
  std::size_t notes = 0;  ///< offset in the segment
  std::size_t slice = 0, slices = 1;
  std::size_t block = 0;  ///< where gradients are stepped: the same of all slices of one
  /// In the order of lines and of the segment, where gradients are stepped bucket by bucket.
  std::vector<GradientPlace> places = {};
  /// The same where gradients are compressed: these, and all others.
  std::vector<comm::Codec*> codecs = {};
  PieceList others = {};
};

/// What a rank notes for each bucket, followed by an ItemNote for each item. The maximum over ranks of
/// each byte is what matters.
struct Note {
  enum Index : std::size_t {
    abandoned,
    invalid_weight,
    positive_weight,
    asked_for_squares,
    hook_failed,  ///< after the round before
    hook_passed,
    first_item
  };
};

/// What a rank notes for each gradient, in bytes that are 0 or 1.
struct ItemNote {
  std::uint8_t reached = 0;    ///< has one
  std::uint8_t missed = 0;     ///< has samples, wants a gradient, and has none of it
  std::uint8_t frozen = 0;     ///< wants none
  std::uint8_t trainable = 0;  ///< wants one
  std::uint8_t replaces = 0;   ///< has one that takes the place of what was there before

  bool operator==(const ItemNote&) const = default;
};

/// The numbers of a gradient that begin at a line of a job.
comm::Measured measured_of(const GradientRange& gradient, std::size_t line = 0);

/// The ranges of items, all of them measured, in the order of memory: neighbours are one piece.
PieceList pieces_of(std::span<const GradientRange> gradients, std::vector<std::uint32_t> items);

/// Cuts gradients into buckets of at least `bucket_bytes`, in the order of `order`, which names each
/// of them once, or not at all: the notes of the `left_out` ones follow those of the last bucket, and
/// nothing else of them. There is at least one bucket, and never more than `most`; their notes begin
/// at the offset `notes`.
std::vector<Bucket> plan_buckets(std::span<const GradientRange> gradients,
                                 std::span<const std::uint32_t> order, std::size_t left_out,
                                 std::size_t bucket_bytes, std::size_t most, std::size_t notes);

/// Gives buckets their pieces of notes, from an offset on; those of `left_out` items are in the last.
void add_notes(std::vector<Bucket>& buckets, std::size_t left_out, std::size_t notes);

/// What elements of a dtype are to a reduction.
comm::Element element_of(DType dtype);

/// Adds lines of gradients to pieces, of which neighbours are one.
void add_piece(std::vector<comm::Piece>& pieces, DType dtype, std::size_t offset,
               std::size_t bytes);

/// What notes can take at most, where each item is in one bucket, or in several that have no other.
std::size_t notes_bytes(std::size_t items, std::size_t most) noexcept;

}  // namespace lockstep
