#pragma once

#include <cstddef>
#include <vector>

#pragma GCC visibility push(default)

namespace lockstep {

/// Which ranks of a communicator are on one node, that is, can share memory.
struct Placement {
  int node = 0;       ///< of this rank; nodes are in the order of their first ranks
  int node_rank = 0;  ///< this rank's place in nodes[node]
  std::vector<std::vector<int>> nodes;  ///< the ranks of each node, in ascending order
  bool crowded = false;  ///< this rank's machine has fewer cores for the ranks than ranks

  const std::vector<int>& neighbours() const { return nodes[static_cast<std::size_t>(node)]; }
};

}  // namespace lockstep

#pragma GCC visibility pop
