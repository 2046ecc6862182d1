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
};

/// What is reduced in one go: some gradients, and the ranks' notes on these.
struct Bucket {
  std::vector<std::uint32_t> items;
  std::vector<comm::Piece> pieces;
  std::size_t notes = 0;  ///< offset in the segment
};

/// What a rank notes for each bucket, a byte each, followed by one for each item that says whether
/// this rank has a gradient of it. The maximum over ranks is what matters.
struct Note {
  enum Index : std::size_t { abandoned, invalid_weight, positive_weight, first_item };
};

/// Cuts gradients into buckets of at least `bucket_bytes`, in the order of `order`, which names
/// each of them once. Neighbours in memory are one piece, whatever the order. There are never more
/// than `most` buckets; their notes begin at the offset `notes`.
std::vector<Bucket> plan_buckets(std::span<const GradientRange> gradients,
                                 std::span<const std::uint32_t> order, std::size_t bucket_bytes,
                                 std::size_t most, std::size_t notes);

/// What notes can take at most.
std::size_t notes_bytes(std::size_t items, std::size_t most) noexcept;

}  // namespace lockstep
