#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "comm/job.hpp"
#include "comm/node_reduction.hpp"
#include "comm/sum_order.hpp"

namespace lockstep::comm {

/// Sums of the ranks of a node as they travel to others, and what is made of those of all nodes.
class NodeSums {
 public:
  /// `order` is that of what the nodes send, `outputs` of them each. Numbers travel in a format other than
  /// `full` only where each node sends one.
  NodeSums(NodeReduction& node, SumOrder order, SumOrder weight_order,
           std::vector<std::size_t> outputs, WireFormat wire);

  WireFormat wire() const noexcept { return wire_; }
  /// The most that a node sends of a number.
  std::size_t most_outputs() const noexcept;

  bool is_narrowed(const Piece& piece) const noexcept;
  /// Of one sum of a node.
  std::size_t travelling_bytes(const Piece& piece, std::size_t bytes) const noexcept;

  /// Writes those of this node to `payload`, and returns the end; as means, where the range of numbers is
  /// narrow.
  std::byte* write(std::size_t own_node, std::uint64_t sequence, const Piece& piece,
                   std::size_t offset, std::size_t bytes, std::byte* payload);

  /// What has come of a chunk.
  struct OfNodes {
    std::vector<const std::byte*> payloads;  ///< what comes next of each node
    std::vector<double> weights;
  };
  double total_weight(const OfNodes& nodes) const { return weight_order_.sum(nodes.weights); }
  /// Combines so many bytes of results, and moves on to what follows.
  void conclude(const Job& job, const Piece& piece, std::size_t bytes, OfNodes& nodes,
                void* result);

 private:
  NodeReduction& node_;
  SumOrder order_;
  SumOrder weight_order_;
  std::vector<std::size_t> outputs_;  // sums that each node sends of a number
  WireFormat wire_;
  std::vector<double> scratch_;  // sums before they are narrowed
  std::vector<Operand> operands_;
  std::vector<void*> blocks_;  // where the sums of this node go
};

}  // namespace lockstep::comm
