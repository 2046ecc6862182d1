#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#pragma GCC visibility push(default)

namespace lockstep {

/// As what the numbers of a sum travel between nodes.
enum class WireFormat : std::uint8_t {
  full,  ///< as they are
  fp16,  ///< IEEE 754 binary16; what is above 65504 becomes infinite
  bf16,  ///< the upper half of binary32
};

/// What a node has sent, and what it counts in the mean over all nodes: the shares of all messages add
/// up to 1.
struct NodeMessage {
  std::span<const std::byte> bytes;
  double share = 0;
};

}  // namespace lockstep

#pragma GCC visibility pop
