#include "parallel/shard_plan.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

#include "comm/job.hpp"

namespace lockstep {

using comm::line_bytes;
using Ranges = comm::RangeGather::Ranges;

namespace {

std::size_t bytes_of(const ShardItem& item) {
  return comm::whole_lines(static_cast<std::size_t>(item.numbers) * item_size(item.dtype));
}

}  // namespace

ShardPlan::ShardPlan(std::vector<ShardItem> items, int ranks,
                     const std::vector<std::vector<std::size_t>>& blocks)
    : items_(std::move(items)), places_(items_.size()), ranks_(ranks) {
  std::vector<bool> placed(items_.size());
  for (const std::vector<std::size_t>& block : blocks) {
    for (const std::size_t item : block) placed[item] = true;
    place_block(block);
  }
  for (const DType dtype : {DType::f32, DType::f64}) {
    std::vector<std::size_t> block;
    for (std::size_t i = 0; i < items_.size(); ++i) {
      if (!placed[i] && !items_[i].whole && items_[i].dtype == dtype) block.push_back(i);
    }
    place_block(block);
  }
  place_whole();
}

void ShardPlan::place_block(const std::vector<std::size_t>& items) {
  Block block{.begin = bytes_, .end = bytes_};
  if (!blocks_.empty()) {
    const Block& last = blocks_.back();
    const std::size_t lines = (last.end - last.begin) / line_bytes;
    block.turn = (last.turn + lines) % static_cast<std::size_t>(ranks_);
  }
  for (const std::size_t i : items) {
    places_[i].offset = block.end;
    block.end += bytes_of(items_[i]);
  }
  for (const std::size_t i : items) places_[i].cut = block;
  blocks_.push_back(block);
  bytes_ = block.end;
}

void ShardPlan::place_whole() {
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < items_.size(); ++i) {
    if (items_[i].whole) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(), [this](std::size_t a, std::size_t b) {
    return bytes_of(items_[a]) > bytes_of(items_[b]);
  });
  std::vector<std::size_t> loads(static_cast<std::size_t>(ranks_));
  for (const std::size_t i : order) {
    const auto least = std::min_element(loads.begin(), loads.end());
    places_[i].owner = static_cast<int>(least - loads.begin());
    *least += bytes_of(items_[i]);
  }
  for (int rank = 0; rank < ranks_; ++rank) {
    const std::size_t begin = bytes_;
    for (std::size_t i = 0; i < items_.size(); ++i) {
      if (!items_[i].whole || places_[i].owner != rank) continue;
      places_[i].offset = bytes_;
      bytes_ += bytes_of(items_[i]);
    }
    whole_.push_back({begin, bytes_});
  }
}

// The lines that are left when all have got as many go to ranks by turns.
comm::RangeGather::Range ShardPlan::part_of(const Block& block, int rank) const {
  const auto ranks = static_cast<std::size_t>(ranks_);
  const std::size_t lines = (block.end - block.begin) / line_bytes;
  const std::size_t each = lines / ranks, left = lines % ranks;
  const std::size_t wrapped = std::max(block.turn + left, ranks) - ranks;
  const auto bound = [&](std::size_t r) {
    const std::size_t more =
        std::min(r, wrapped) + std::min(std::max(r, block.turn) - block.turn, left - wrapped);
    return block.begin + (each * r + more) * line_bytes;
  };
  const auto r = static_cast<std::size_t>(rank);
  return {bound(r), bound(r + 1)};
}

comm::RangeGather::Range ShardPlan::part(std::size_t block, int rank) const {
  return part_of(blocks_[block], rank);
}

ShardPlan::Share ShardPlan::share(std::size_t index, int rank) const {
  const ShardItem& item = items_[index];
  const Place& place = places_[index];
  if (item.whole) return {0, place.owner == rank ? item.numbers : 0};
  const comm::RangeGather::Range part = part_of(place.cut, rank);
  const std::size_t begin = std::max(place.offset, part.begin);
  const std::size_t end = std::min(place.offset + bytes_of(item), part.end);
  if (begin >= end) return {};
  const std::size_t size = item_size(item.dtype);
  const auto first = static_cast<std::int64_t>((begin - place.offset) / size);
  const auto last = static_cast<std::int64_t>((end - place.offset) / size);
  return {first, std::min(last, item.numbers) - first};
}

std::vector<Ranges> ShardPlan::ranges() const {
  std::vector<Ranges> result(static_cast<std::size_t>(ranks_));
  for (int rank = 0; rank < ranks_; ++rank) {
    Ranges& of_rank = result[static_cast<std::size_t>(rank)];
    for (const Block& block : blocks_) of_rank.push_back(part_of(block, rank));
    of_rank.push_back(whole_[static_cast<std::size_t>(rank)]);
    std::erase_if(of_rank, [](const auto& range) { return range.begin == range.end; });
  }
  return result;
}

std::vector<Ranges> ShardPlan::ranges(std::size_t item) const {
  std::vector<Ranges> result(static_cast<std::size_t>(ranks_));
  const std::size_t size = item_size(items_[item].dtype);
  for (int rank = 0; rank < ranks_; ++rank) {
    const Share own = share(item, rank);
    if (own.size == 0) continue;
    const std::size_t begin = places_[item].offset + static_cast<std::size_t>(own.begin) * size;
    result[static_cast<std::size_t>(rank)].push_back(
        {begin, begin + static_cast<std::size_t>(own.size) * size});
  }
  return result;
}

}  // namespace lockstep
