#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>

#include "lockstep/state/state_dict.hpp"

namespace lockstep::testing {

/// Any state: keys and strings of any bytes, numbers of any bits.
class Draw {
 public:
  explicit Draw(std::uint32_t seed) : generator_(seed) {}

  std::size_t below(std::size_t bound) { return generator_() % bound; }
  std::uint64_t bits() { return std::uint64_t{generator_()} << 32 | generator_(); }

  std::string text() {
    std::string bytes(below(6), ' ');
    for (char& byte : bytes) byte = static_cast<char>(below(256));
    return bytes;
  }

  StateDict dict(std::size_t depth) {
    StateDict state;
    for (std::size_t i = below(5); i > 0; --i) state[text()] = value(depth);
    return state;
  }

  StateValue value(std::size_t depth) {
    switch (below(depth > 0 ? 7 : 5)) {
      case 0:
        return below(2) == 1;
      case 1:
        return static_cast<std::int64_t>(bits());
      case 2:
        return std::bit_cast<double>(bits());
      case 3:
        return text();
      case 4:
        return Tensor::full({static_cast<std::int64_t>(below(3))}, 1, static_cast<DType>(below(4)));
      case 5:
        return dict(depth - 1);
      default:
        break;
    }
    StateList list;
    for (std::size_t i = below(4); i > 0; --i) list.push_back(value(depth - 1));
    return list;
  }

 private:
  std::mt19937 generator_;
};

}  // namespace lockstep::testing
