#include "parallel/part_sums.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "tensor/dispatch.hpp"
#include "tensor/kernels.hpp"

namespace lockstep {

namespace {

using Sums = std::vector<std::vector<comm::Subtree>>;

Sums sums_of(const comm::Parts::Range& range) {
  Sums sums;
  for (std::int64_t end = range.begin; end <= range.end; ++end) {
    sums.push_back(comm::subtrees_of(range.begin, end));
  }
  return sums;
}

// Behind as many slots as there are subtrees at a time; a single part is computed where it stays.
std::size_t work_slot_of(const comm::Parts::Range& range, const Sums& sums) {
  std::size_t slot = 0;
  if (range.end - range.begin == 1) return slot;
  for (const auto& subtrees : sums) slot = std::max(slot, subtrees.size());
  return slot;
}

}  // namespace

PartSums::PartSums(const comm::Parts& parts, int rank, int ranks) {
  if (parts.count == 0) return;
  range_ = parts.of(rank, ranks);
  sums_ = sums_of(range_);
  work_slot_ = work_slot_of(range_, sums_);
  for (int other = 0; other < ranks; ++other) {
    const comm::Parts::Range range = parts.of(other, ranks);
    slots_ = std::max(slots_, work_slot_of(range, sums_of(range)) + 1);
  }
}

void PartSums::fold(std::byte* segment, std::size_t slot_bytes, std::size_t done,
                    const comm::Piece& range) const {
  if (work_slot_ == 0) return;
  const auto at = [&](std::size_t slot) { return segment + slot * slot_bytes + range.offset; };
  const std::vector<comm::Subtree>& sums = sums_[done];
  comm::Subtree sum{.begin = range_.begin + static_cast<std::int64_t>(done), .size = 1};
  const std::byte* right = at(work_slot_);
  std::size_t left = sums.size();
  for (; left > 0 && sums[left - 1].is_left_of(sum); --left) {
    std::byte* target = at(left - 1);
    dispatch_floating(
        range.element == comm::Element::f32 ? DType::f32 : DType::f64, [&]<class T>() {
          kernels::add_scaled(static_cast<std::int64_t>(range.bytes / sizeof(T)), T{1},
                              reinterpret_cast<const T*>(right), reinterpret_cast<T*>(target));
        });
    sum = {.begin = sums[left - 1].begin, .size = 2 * sum.size};
    right = target;
  }
  if (left == sums.size()) std::memcpy(at(left), right, range.bytes);
}

}  // namespace lockstep
