#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lockstep/comm/wire.hpp"
#include "lockstep/state/state_dict.hpp"
#include "lockstep/tensor/shape.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

/// How the gradient of one parameter is told to other nodes. On each node one rank does that for all of
/// the node: it has one of these for the parameter as long as the reducer lives. A reduction is one or
/// several rounds, in each of which every node writes a message and then reads those of all. Only what
/// has been read may change what the next reductions do, beside the gradient that is left: so all nodes
/// get the same result, to the bit.
///
/// Memory of messages begins at a 64-byte boundary, and is zero in encode().
class TensorCompressor {
 public:
  virtual ~TensorCompressor() = default;

  /// Bytes of the message of each round; constant, and the same on all nodes.
  virtual std::vector<std::size_t> message_bytes() const = 0;

  /// Writes this node's message of a round. `gradient` is the mean over the node's samples plus what
  /// earlier reductions have left, in row-major order, all of it finite. What is in it after the last
  /// round is what this one leaves: zeros where all was sent, or where the rest is to be forgotten. Not
  /// called on a node without samples.
  virtual void encode(std::size_t round, std::span<float> gradient,
                      std::span<std::byte> message) = 0;

  /// Reads what the nodes with samples have sent in a round, in the order of nodes. In the last round
  /// writes to `mean` what they have sent, averaged with their shares. Where that is not finite, the
  /// reduction counts as not used.
  virtual void decode(std::size_t round, std::span<const NodeMessage> messages,
                      std::span<float> mean) = 0;

  /// The reduction is over: whether its result is used, on all nodes. Where it is not, as after an error
  /// on some rank, the next one is to begin as this one has; it may have ended before its last round.
  virtual void end(bool used) { static_cast<void>(used); }

  /// What goes on from one reduction to the next, beside what is left of the gradient; the same on all
  /// nodes. Keys, dtypes and shapes never change.
  virtual StateDict state_dict() const { return {}; }
  /// Throws what restore() would, and changes nothing.
  virtual void check_restore(const StateDict& source) const { static_cast<void>(source); }
  virtual void restore(const StateDict& source) { static_cast<void>(source); }
};

/// Which parameters are compressed, and how. Derive from this and from TensorCompressor for a method of
/// your own.
class GradientCompression {
 public:
  virtual ~GradientCompression() = default;

  /// The method and its options in words: what all ranks must have alike.
  virtual std::string describe() const = 0;
  /// Null where the gradient of that parameter travels as it is, such as one of few numbers.
  virtual std::unique_ptr<TensorCompressor> compressor(const std::string& name,
                                                       const Shape& shape) const = 0;
  /// How many reductions come before the first one that is compressed.
  virtual std::uint64_t first_reduction() const { return 0; }
};

/// Of each gradient sends the numbers of largest magnitude, of equal ones the first, and keeps all others
/// for later reductions. Stich, Cordonnier, Jaggi, "Sparsified SGD with memory", arXiv:1809.07599.
class TopK : public GradientCompression {
 public:
  struct Options {
    double fraction = 0.05;  ///< of the numbers of a gradient, in (0, 0.5]; at least one is sent
    std::int64_t least_size = 1024;  ///< gradients of fewer numbers travel as they are
    std::uint64_t first_reduction = 0;
  };
  /// OptionError for options out of their range.
  explicit TopK(const Options& options);
  TopK() : TopK(Options()) {}

  std::string describe() const override;
  std::unique_ptr<TensorCompressor> compressor(const std::string& name,
                                               const Shape& shape) const override;
  std::uint64_t first_reduction() const override { return options_.first_reduction; }

 private:
  Options options_;
};

/// Sends each gradient, as a matrix M of shape (first dimension, all others), as the product P·Qᵀ of
/// `rank` columns that one step of a power iteration finds: P = orthonormal(M·Q), Q = Mᵀ·P, beginning
/// with the Q of the reduction before. What that leaves of a node's gradient is kept for later
/// reductions. Vogels, Karimireddy, Jaggi, "PowerSGD", arXiv:1905.13727, algorithms 1 and 2.
class PowerSgd : public GradientCompression {
 public:
  struct Options {
    std::int64_t rank = 4;
    /// Gradients that take not so many times fewer numbers as P and Q travel as they are.
    double least_factor = 2;
    std::uint64_t first_reduction = 0;
    std::uint64_t seed = 0;  ///< of the first Q, with the name of the parameter
  };
  /// OptionError for options out of their range.
  explicit PowerSgd(const Options& options);
  PowerSgd() : PowerSgd(Options()) {}

  std::string describe() const override;
  std::unique_ptr<TensorCompressor> compressor(const std::string& name,
                                               const Shape& shape) const override;
  std::uint64_t first_reduction() const override { return options_.first_reduction; }

 private:
  Options options_;
};

}  // namespace lockstep

#pragma GCC visibility pop
