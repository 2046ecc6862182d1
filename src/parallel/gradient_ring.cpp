#include "parallel/gradient_ring.hpp"

#include <algorithm>

namespace lockstep {

using comm::line_bytes;

// Two buckets that follow each other are larger than one may be, so there are not more than `most`.
GradientRing::GradientRing(std::span<const GradientRange> gradients, std::size_t bucket_bytes,
                           std::size_t most, int ranks)
    : ranks_(ranks) {
  std::size_t total = 0;
  for (const GradientRange& gradient : gradients) total += gradient.bytes;
  largest_ = comm::whole_lines(std::max(std::min(bucket_bytes, total), 2 * total / (most - 1) + 1));
  slots_ = total <= largest_ ? 1 : 8;
  // The slices of what ranks step of a gradient can each have a line more.
  slot_bytes_ = largest_ + static_cast<std::size_t>(ranks) * line_bytes;
}

std::vector<Bucket> GradientRing::plan(std::span<const GradientRange> gradients,
                                       std::span<const std::uint32_t> order, std::size_t left_out,
                                       std::size_t notes) const {
  std::vector<Bucket> buckets;
  std::size_t bytes = largest_ + 1;  // of the last bucket: nothing more fits
  for (const std::uint32_t item : order) {
    const std::size_t own = gradients[item].bytes;
    const std::size_t slices = std::max<std::size_t>(1, (own + largest_ - 1) / largest_);
    if (slices > 1 || bytes + own > largest_) {
      for (std::size_t k = 0; k < slices; ++k)
        buckets.emplace_back(Bucket{.items = {}, .all = {}, .slice = k, .slices = slices});
      bytes = slices > 1 ? largest_ + 1 : 0;
    }
    for (std::size_t k = 0; k < slices; ++k) buckets[buckets.size() - 1 - k].items.push_back(item);
    if (slices == 1) bytes += own;
  }
  if (buckets.empty()) buckets.emplace_back();
  add_notes(buckets, left_out, notes);
  return buckets;
}

void GradientRing::place(std::vector<Bucket>& buckets, std::span<const GradientRange> gradients,
                         const PartOf& part) const {
  for (std::size_t b = 0; b < buckets.size(); ++b) {
    Bucket& bucket = buckets[b];
    const comm::Piece notes = bucket.all.pieces.back();
    bucket.all.pieces.clear();
    bucket.places.clear();
    std::size_t offset = b % slots_ * slot_bytes_;
    const auto add = [&](std::size_t item, std::size_t begin, std::size_t bytes) {
      bucket.places.push_back({item, offset, begin, bytes});
      add_piece(bucket.all.pieces, gradients[bucket.items[item]].dtype, offset, bytes);
      offset += bytes;
    };
    if (bucket.slices == 1) {
      for (std::size_t i = 0; i < bucket.items.size(); ++i) {
        add(i, 0, gradients[bucket.items[i]].bytes);
      }
    } else {
      for (int rank = 0; rank < ranks_; ++rank) {
        const comm::LineRange lines =
            slice_of(part(bucket.block, rank), bucket.slice, bucket.slices);
        add(0, lines.begin * line_bytes, (lines.end - lines.begin) * line_bytes);
      }
    }
    bucket.all.pieces.push_back(notes);
  }
}

}  // namespace lockstep
