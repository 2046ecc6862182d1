#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "parallel/bucket_plan.hpp"

namespace lockstep {

/// The part of a range of lines that is slice k of n.
constexpr comm::LineRange slice_of(comm::LineRange lines, std::size_t k, std::size_t n) noexcept {
  const std::size_t count = lines.end - lines.begin;
  return {lines.begin + count * k / n, lines.begin + count * (k + 1) / n};
}

/// Memory of a segment that a few buckets have by turns, where there is none for all gradients: bucket b
/// has slot b % slots(). A gradient that is larger than a slot makes buckets by itself, slices of it, each
/// with a slice of what each rank steps of it.
class GradientRing {
 public:
  /// At most `most` buckets, and about `bucket_bytes` a slot.
  GradientRing(std::span<const GradientRange> gradients, std::size_t bucket_bytes, std::size_t most,
               int ranks);

  std::size_t slots() const noexcept { return slots_; }
  std::size_t slot_bytes() const noexcept { return slot_bytes_; }

  /// As plan_buckets(), but for places and pieces other than the notes.
  std::vector<Bucket> plan(std::span<const GradientRange> gradients,
                           std::span<const std::uint32_t> order, std::size_t left_out,
                           std::size_t notes) const;

  /// Finds them, for buckets that know their blocks. `part` tells the lines that a rank steps of those of a block, which is a bucket or all slices
  /// of a gradient.
  using PartOf = std::function<comm::LineRange(std::size_t block, int rank)>;
  void place(std::vector<Bucket>& buckets, std::span<const GradientRange> gradients,
             const PartOf& part) const;

 private:
  std::size_t largest_;  // bytes of a bucket
  std::size_t slots_;
  std::size_t slot_bytes_;
  int ranks_;
};

}  // namespace lockstep
