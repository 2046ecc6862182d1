#pragma once

#include <cstddef>
#include <vector>

#include "comm/job.hpp"
#include "comm/reduction.hpp"
#include "comm/sum_order.hpp"

namespace lockstep {

/// The sums over this rank's parts, as far as they are subtrees of one tree over all parts: in the
/// first slots of a segment, as comm::Parts wants them. Each part is computed in the work slot, and
/// then folded into the sums of the parts before.
class PartSums {
 public:
  /// Without parts there is one slot, and nothing to fold.
  PartSums(const comm::Parts& parts, int rank, int ranks);

  comm::Parts::Range range() const noexcept { return range_; }
  /// What the rank with the most of them needs, since segments that ranks share are of one size.
  std::size_t slots() const noexcept { return slots_; }
  std::size_t work_slot() const noexcept { return work_slot_; }

  /// Adds a range of the work slot, of f32 or f64, to the sums of the `done` parts before.
  void fold(std::byte* segment, std::size_t slot_bytes, std::size_t done,
            const comm::Piece& range) const;

 private:
  comm::Parts::Range range_{0, 0};
  std::size_t work_slot_ = 0;
  std::size_t slots_ = 1;
  std::vector<std::vector<comm::Subtree>> sums_;  // in the slots after so many parts
};

}  // namespace lockstep
