#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "lockstep/comm/communicator.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

/// Memory that the ranks of a node share: a segment for each of them, and a part that is common to
/// them. POSIX shared memory, which has no name any more when the constructor is done, so that
/// nothing is left behind however the program ends. All of it is zero to begin with.
///
/// Where a rank cannot have it, no rank does, and a warning is logged on rank 0, which says why:
/// then each rank has ordinary memory for its segment and its common part, as if it were alone on
/// its node.
class NodeMemory {
 public:
  /// Collective; all ranks must ask for the same. Error on all where there is not even ordinary
  /// memory.
  NodeMemory(const Communicator& communicator, std::size_t segment_bytes, std::size_t common_bytes);

  bool shared() const noexcept { return shared_; }
  /// Who shares this memory, which is this rank alone where shared() is false.
  const Placement& placement() const noexcept { return placement_; }

  /// Segments begin at page boundaries, the common part as well. They live as long as a copy of
  /// owner().
  std::span<std::byte> segment(int node_rank) const noexcept;
  std::span<std::byte> own() const noexcept { return segment(placement_.node_rank); }
  std::span<std::byte> common() const noexcept;
  const std::shared_ptr<void>& owner() const noexcept { return memory_; }

 private:
  Placement placement_;
  bool shared_ = false;
  std::size_t segment_bytes_;
  std::size_t common_bytes_;
  std::shared_ptr<void> memory_;
};

}  // namespace lockstep

#pragma GCC visibility pop
