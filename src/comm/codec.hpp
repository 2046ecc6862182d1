#pragma once

#include <cstddef>
#include <span>

#include "comm/job.hpp"
#include "comm/measured.hpp"
#include "lockstep/comm/wire.hpp"

namespace lockstep::comm {

/// A range whose sum over a node is told to other nodes in messages of its own, in one or several
/// rounds, by the ranks that have its lane.
class Codec {
 public:
  Codec(const Piece& piece, const Measured& measured, std::size_t lane)
      : piece_(piece), measured_(measured), lane_(lane) {}
  virtual ~Codec() = default;

  const Piece& piece() const noexcept { return piece_; }
  /// Of what is reduced, the numbers whose squares are summed.
  const Measured& measured() const noexcept { return measured_; }
  std::size_t lane() const noexcept { return lane_; }

  /// Of each round; the same on all nodes.
  virtual std::span<const std::size_t> message_bytes() const = 0;
  /// Where the sum of the node is to go before the first round: accumulators.
  virtual void* sums() = 0;
  /// Writes this node's message, into zeros at the beginning of a line. `weight` is that of the numbers
  /// in the sum, and positive.
  virtual void encode(std::size_t round, double weight, std::span<std::byte> message) = 0;
  /// Takes the messages of the nodes with a weight. In the last round writes to the range what they have
  /// sent: `scale` times its mean.
  virtual void decode(std::size_t round, std::span<const NodeMessage> messages, double scale,
                      std::byte* range) = 0;

 private:
  Piece piece_;
  Measured measured_;
  std::size_t lane_;
};

}  // namespace lockstep::comm
