#include "parallel/bucket_plan.hpp"

#include <algorithm>

namespace lockstep {

comm::Element element_of(DType dtype) {
  return dtype == DType::f32   ? comm::Element::f32
         : dtype == DType::f64 ? comm::Element::f64
         : dtype == DType::i64 ? comm::Element::i64
                               : comm::Element::u8;
}

void add_piece(std::vector<comm::Piece>& pieces, DType dtype, std::size_t offset,
               std::size_t bytes) {
  if (bytes == 0) return;
  const comm::Element element = element_of(dtype);
  if (!pieces.empty() && pieces.back().element == element &&
      pieces.back().offset + pieces.back().bytes == offset) {
    pieces.back().bytes += bytes;
  } else {
    pieces.push_back({element, ReduceOp::sum, offset, bytes});
  }
}

comm::Measured measured_of(const GradientRange& gradient, std::size_t line) {
  return {.element = element_of(gradient.dtype),
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
    list.measured.push_back(measured_of(range, line));
    line += range.bytes / comm::line_bytes;
    add_piece(list.pieces, range.dtype, range.offset, range.bytes);
  }
  return list;
}

std::size_t notes_bytes(std::size_t items, std::size_t most) noexcept {
  return (items + most) * sizeof(ItemNote) + most * (Note::first_item + comm::line_bytes);
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
  for (Bucket& bucket : buckets) bucket.all = pieces_of(gradients, bucket.items);
  add_notes(buckets, left_out, notes);
  return buckets;
}

void add_notes(std::vector<Bucket>& buckets, std::size_t left_out, std::size_t notes) {
  for (Bucket& bucket : buckets) {
    bucket.notes = notes;
    const std::size_t items = bucket.items.size() + (&bucket == &buckets.back() ? left_out : 0);
    const std::size_t size = comm::whole_lines(Note::first_item + items * sizeof(ItemNote));
    bucket.all.pieces.push_back({comm::Element::u8, ReduceOp::max, notes, size});
    notes += size;
  }
}

}  // namespace lockstep
