#include "parallel/bucket_plan.hpp"

#include <algorithm>

namespace lockstep {

comm::Measured measured_of(const GradientRange& gradient, std::size_t line) {
  return {.element = gradient.dtype == DType::f32 ? comm::Element::f32 : comm::Element::f64,
          .line = line,
          .offset = gradient.offset,
          .numbers = gradient.numbers,
          .sums = gradient.squares};
}

PieceList pieces_of(std::span<const GradientRange> gradients, std::vector<std::uint32_t> items) {
  std::sort(items.begin(), items.end(), [&](std::uint32_t a, std::uint32_t b) {
    return gradients[a].offset < gradients[b].offset;
  });
  PieceList list;
  std::size_t line = 0;
  for (const std::uint32_t item : items) {
    const GradientRange& range = gradients[item];
    if (range.bytes == 0) continue;
    const comm::Measured& measured = list.measured.emplace_back(measured_of(range, line));
    line += range.bytes / comm::line_bytes;
    if (!list.pieces.empty() && list.pieces.back().element == measured.element &&
        list.pieces.back().offset + list.pieces.back().bytes == range.offset) {
      list.pieces.back().bytes += range.bytes;
    } else {
      list.pieces.push_back({measured.element, ReduceOp::sum, range.offset, range.bytes});
    }
  }
  return list;
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
    bucket.all = pieces_of(gradients, bucket.items);
    bucket.notes = notes;
    const std::size_t items = bucket.items.size() + (&bucket == &buckets.back() ? left_out : 0);
    const std::size_t size = comm::whole_lines(Note::first_item + items * sizeof(ItemNote));
    bucket.all.pieces.push_back({comm::Element::u8, ReduceOp::max, notes, size});
    notes += size;
  }
  return buckets;
}

}  // namespace lockstep
