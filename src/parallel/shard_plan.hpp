#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "comm/range_gather.hpp"
#include "lockstep/core/dtype.hpp"

namespace lockstep {

struct ShardItem {
  DType dtype = DType::f32;
  std::int64_t numbers = 0;
  bool whole = false;  ///< belongs to one rank
};

/// Which rank steps which numbers of parameters, and where these lie in a memory that all ranks lay out
/// alike: first those that are cut, of f32 and then of f64, each at a 64-byte boundary and in the given
/// order, and then the whole ones, by rank.
///
/// Those that are cut make blocks: all of a dtype, or some that are listed. Of each block rank r of R has the
/// r-th part; over all blocks together, no two ranks differ by more than a line of 64 bytes. Whole ones go one by one, the largest first, to the rank that has
/// the least of them so far (Graham, "Bounds on multiprocessing timing anomalies", 1969).
class ShardPlan {
 public:
  struct Share {
    std::int64_t begin = 0, size = 0;
  };

  ShardPlan() = default;
  /// `blocks` lists items that come one after the other in memory; what is in none of them makes one for
  /// each dtype.
  ShardPlan(std::vector<ShardItem> items, int ranks,
            const std::vector<std::vector<std::size_t>>& blocks = {});

  /// Of the memory.
  std::size_t bytes() const noexcept { return bytes_; }
  std::size_t offset(std::size_t item) const { return places_[item].offset; }
  /// The numbers of an item that a rank has.
  Share share(std::size_t item, int rank) const;
  /// The bytes in memory that each rank has, of all items or of one.
  std::vector<comm::RangeGather::Ranges> ranges() const;
  std::vector<comm::RangeGather::Ranges> ranges(std::size_t item) const;
  /// Of the bytes of a listed block, those that a rank has.
  comm::RangeGather::Range part(std::size_t block, int rank) const;

 private:
  struct Block {
    std::size_t begin = 0, end = 0;  // bytes
    std::size_t turn = 0;            // the rank that is the next to get a line more than others
  };
  struct Place {
    std::size_t offset = 0;
    Block cut;      // the range that the item is in
    int owner = 0;  // of a whole one
  };

  comm::RangeGather::Range part_of(const Block& block, int rank) const;
  void place_block(const std::vector<std::size_t>& items);
  void place_whole();

  std::vector<ShardItem> items_;
  std::vector<Place> places_;
  std::vector<Block> blocks_;
  std::vector<comm::RangeGather::Range> whole_;  // of each rank
  std::size_t bytes_ = 0;
  int ranks_ = 1;
};

}  // namespace lockstep
