#include "comm/node_sums.hpp"

#include <algorithm>
#include <utility>

namespace lockstep::comm {
namespace {

std::size_t accumulated(const Piece& piece, std::size_t bytes) {
  return bytes / item_size(piece.element) * accumulator_size(piece.element);
}

}  // namespace

NodeSums::NodeSums(NodeReduction& node, SumOrder order, SumOrder weight_order,
                   std::vector<std::size_t> outputs, WireFormat wire)
    : node_(node),
      order_(std::move(order)),
      weight_order_(std::move(weight_order)),
      outputs_(std::move(outputs)),
      wire_(wire) {}

std::size_t NodeSums::most_outputs() const noexcept {
  return *std::max_element(outputs_.begin(), outputs_.end());
}

bool NodeSums::is_narrowed(const Piece& piece) const noexcept {
  return wire_ != WireFormat::full && piece.op == ReduceOp::sum &&
         (piece.element == Element::f32 || piece.element == Element::f64);
}

std::size_t NodeSums::travelling_bytes(const Piece& piece, std::size_t bytes) const noexcept {
  const std::size_t count = bytes / item_size(piece.element);
  return count * (is_narrowed(piece) ? wire_size(wire_) : accumulator_size(piece.element));
}

std::byte* NodeSums::write(std::size_t own_node, std::uint64_t sequence, const Piece& piece,
                           std::size_t offset, std::size_t bytes, std::byte* payload) {
  const std::size_t count = bytes / item_size(piece.element);
  const bool narrowed = is_narrowed(piece);
  if (narrowed) scratch_.resize(std::max(scratch_.size(), bytes / sizeof(double)));
  blocks_.resize(outputs_[own_node]);
  std::byte* to = payload;
  for (void*& block : blocks_) {
    block = narrowed ? static_cast<void*>(scratch_.data()) : to;
    to += accumulated(piece, bytes);
  }
  combine(piece.element, piece.op, count, node_.operands(piece, sequence, offset), node_.order(),
          blocks_.data());
  if (narrowed) {
    const double weight = node_.weight(sequence);
    to_wire(wire_, piece.element, count, scratch_.data(), weight > 0 ? 1 / weight : 0, payload);
  }
  return payload + blocks_.size() * travelling_bytes(piece, bytes);
}

void NodeSums::conclude(const Job& job, const Piece& piece, std::size_t bytes, OfNodes& nodes,
                        void* result) {
  const std::size_t count = bytes / item_size(piece.element);
  const std::size_t each = travelling_bytes(piece, bytes);
  const bool narrowed = is_narrowed(piece);
  operands_.clear();
  for (std::size_t node = 0; node < outputs_.size(); ++node) {
    for (std::size_t output = 0; output < outputs_[node]; ++output) {
      operands_.push_back(
          {.data = nodes.payloads[node], .weight = narrowed ? nodes.weights[node] : 1});
      nodes.payloads[node] += each;
    }
  }
  const double divisor = job.average ? total_weight(nodes) : job.divisor;
  if (narrowed) {
    conclude_wire(wire_, piece.element, count, operands_, order_, divisor, result);
  } else {
    comm::conclude(piece.element, piece.op, count, operands_, order_, divisor, result);
  }
}

}  // namespace lockstep::comm
