#include "parallel/bucket_plan.hpp"

#include <algorithm>

namespace lockstep {

std::vector<comm::Piece> pieces_of(std::span<const GradientRange> gradients,
                                   std::vector<std::uint32_t> items) {
  std::sort(items.begin(), items.end(), [&](std::uint32_t a, std::uint32_t b) {
    return gradients[a].offset < gradients[b].offset;
  });
  std::vector<comm::Piece> pieces;
  for (const std::uint32_t item : items) {
    const GradientRange& range = gradients[item];
    const auto element = range.dtype == DType::f32 ? comm::Element::f32 : comm::Element::f64;
    if (!pieces.empty() && pieces.back().element == element &&
        pieces.back().offset + pieces.back().bytes == range.offset) {
      pieces.back().bytes += range.bytes;
    } else if (range.bytes > 0) {
      pieces.push_back({element, ReduceOp::sum, range.offset, range.bytes});
    }
  }
  return pieces;
}

std::size_t notes_bytes(std::size_t items, std::size_t most) noexcept {
  return items * sizeof(ItemNote) + most * (Note::first_item + comm::line_bytes);
}

std::vector<Bucket> plan_buckets(std::span<const GradientRange> gradients,
                                 std::span<const std::uint32_t> order, std::size_t left_out,
                                 std::size_t bucket_bytes, std::size_t most, std::size_t notes) {
  std::size_t total = 0;
  for (const std::uint32_t item : order) total += gradients[item].bytes;
  const std::size_t least = std::max({bucket_bytes, total / most + 1, std::size_t{1}});
  std::vector<Bucket> buckets(1);
  std::size_t bytes = 0;  // of the last bucket
  for (const std::uint32_t item : order) {
    if (bytes >= least) {
      buckets.emplace_back();
      bytes = 0;
    }
    buckets.back().items.push_back(item);
    bytes += gradients[item].bytes;
  }
  for (Bucket& bucket : buckets) {
    bucket.pieces = pieces_of(gradients, bucket.items);
    bucket.notes = notes;
    const std::size_t items = bucket.items.size() + (&bucket == &buckets.back() ? left_out : 0);
    const std::size_t size = comm::whole_lines(Note::first_item + items * sizeof(ItemNote));
    bucket.pieces.push_back({comm::Element::u8, ReduceOp::max, notes, size});
    notes += size;
  }
  return buckets;
}

}  // namespace lockstep
