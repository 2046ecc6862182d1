#pragma once

#include <mpi.h>

#include <cstddef>
#include <span>
#include <vector>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/comm/node_memory.hpp"

namespace lockstep::comm {

/// Memory of one size on each rank, or one for all ranks of a node, of which each rank fills some ranges
/// that all have afterwards: an all-gather in place.
class RangeGather {
 public:
  /// Bytes of the memory.
  struct Range {
    std::size_t begin = 0, end = 0;
  };
  using Ranges = std::vector<Range>;

  /// Collective; all ranks must ask for the same.
  RangeGather(const Communicator& communicator, std::size_t bytes, bool one_per_node);

  std::byte* memory() const noexcept { return segment(memory_.placement().node_rank); }
  const NodeMemory& node() const noexcept { return memory_; }
  /// Whether there is one for all ranks of a node.
  bool one_per_node() const noexcept { return one_per_node_; }

  /// Brings the ranges of all other ranks to this one; `of_ranks` has those of each rank, alike on all, and no
  /// two overlap. Nobody writes to this memory between the call and its end on all ranks, which is when it
  /// returns. Collective.
  void gather(std::span<const Ranges> of_ranks);
  /// The part of it that takes place on the node, for ranges that others have by now. Local.
  void copy_from_neighbours(std::span<const Ranges> of_ranks);
  /// The other way round: writes a range of this rank to the memory of its neighbours. They do not use it
  /// until they know that it is there. Local.
  void copy_to_neighbours(const Range& range);

 private:
  std::byte* segment(int node_rank) const noexcept {
    return one_per_node_ ? memory_.common().data() : memory_.segment(node_rank).data();
  }
  void exchange_nodes(std::span<const Ranges> of_ranks);
  void copy(const Range& range, int from, int to);

  Communicator communicator_;
  bool one_per_node_;
  NodeMemory memory_;
  std::vector<int> first_;  // for each rank, the place of who has its ranges first on this node
  std::vector<MPI_Request> requests_;
};

}  // namespace lockstep::comm
