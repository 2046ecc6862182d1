#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

struct XXH3_state_s;

namespace lockstep {

/// 64-bit XXH3 with seed 0 of bytes that come in pieces.
class Checksum {
 public:
  Checksum();
  ~Checksum();

  void add(std::span<const std::byte> bytes);
  /// Of all bytes since the beginning, or since the last call.
  std::uint64_t take();

 private:
  struct Free {
    void operator()(XXH3_state_s* state) const;
  };
  std::unique_ptr<XXH3_state_s, Free> state_;
};

std::uint64_t checksum(std::span<const std::byte> bytes);

}  // namespace lockstep
