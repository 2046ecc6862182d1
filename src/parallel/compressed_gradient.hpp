#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "comm/codec.hpp"
#include "lockstep/parallel/compression.hpp"

namespace lockstep {

bool all_finite(std::span<const float> numbers);

/// The gradient of a parameter that a TensorCompressor tells to other nodes, and what that has left of
/// those before. Where a number is not finite, in the gradient of a node or in what comes of all, all
/// nodes get NaN, and what was left stays.
class CompressedGradient : public comm::Codec {
 public:
  CompressedGradient(std::unique_ptr<TensorCompressor> compressor, const comm::Piece& piece,
                     const comm::Measured& measured, std::size_t lane);

  std::span<const std::size_t> message_bytes() const override { return message_bytes_; }
  void* sums() override;
  void encode(std::size_t round, double weight, std::span<std::byte> message) override;
  void decode(std::size_t round, std::span<const NodeMessage> messages, double scale,
              std::byte* range) override;

  /// The result of the reduction that is under way is used.
  void accept() noexcept { progress_.accepted = true; }
  /// The reduction is over.
  void end();

  TensorCompressor& compressor() const noexcept { return *compressor_; }
  std::size_t size() const noexcept { return size_; }
  /// What is left on this rank; empty where nothing was sent yet.
  std::span<const float> left() const noexcept {
    return std::span(left_).first(left_.empty() ? 0 : size_);
  }
  void set_left(std::span<const float> left);

 private:
  void add_left(double weight);
  std::size_t padded_size() const;

  std::unique_ptr<TensorCompressor> compressor_;
  std::vector<std::size_t> message_bytes_;
  std::size_t size_;             // without padding
  std::vector<float> left_;      // padded as the piece is, or empty
  std::vector<float> gradient_;  // what there is to send, and then what will be left
  std::vector<double> sums_;     // where the piece is of f64
  std::vector<float> mean_;
  std::vector<NodeMessage> messages_;
  bool finite_ = true;  // on this node, in this reduction
  struct Progress {
    bool begun = false;
    bool encoded = false;  // by a compressor
    bool decoded = false;
    bool spoilt = false;  // not finite on some node, or in what all have sent
    bool accepted = false;
  };
  Progress progress_;  // of this reduction
};

}  // namespace lockstep
