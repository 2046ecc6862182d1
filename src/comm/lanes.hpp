#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "lockstep/comm/placement.hpp"

namespace lockstep::comm {

/// What travels between nodes is cut into as many lanes as the largest node has ranks. A lane belongs
/// to one rank of each node, and only these exchange it.
class Lanes {
 public:
  explicit Lanes(const Placement& placement)
      : nodes_(placement.nodes), own_node_(static_cast<std::size_t>(placement.node)) {
    for (const std::vector<int>& ranks : nodes_) count_ = std::max(count_, ranks.size());
    const auto place = static_cast<std::size_t>(placement.node_rank);
    const std::size_t ranks = nodes_[own_node_].size();
    first_ = (place * count_ + ranks - 1) / ranks;
    last_ = ((place + 1) * count_ + ranks - 1) / ranks;
  }

  std::size_t nodes() const noexcept { return nodes_.size(); }
  std::size_t own_node() const noexcept { return own_node_; }
  /// The node that comes so many after this rank's; after the last one comes the first. Who sends to the next one
  /// first does not send to the same node as all others.
  std::size_t node_after(std::size_t distance) const { return (own_node_ + distance) % nodes(); }
  std::size_t count() const noexcept { return count_; }
  /// Those of this rank are [first(), last()).
  std::size_t first() const noexcept { return first_; }
  std::size_t last() const noexcept { return last_; }
  int owner(std::size_t node, std::size_t lane) const {
    return nodes_[node][lane * nodes_[node].size() / count_];
  }

 private:
  std::vector<std::vector<int>> nodes_;
  std::size_t own_node_;
  std::size_t count_ = 0;
  std::size_t first_ = 0, last_ = 0;
};

}  // namespace lockstep::comm
