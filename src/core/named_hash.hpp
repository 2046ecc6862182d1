#pragma once

#include <cstdint>
#include <string>

namespace lockstep {

/// Something that all ranks should have alike: its name, and a hash of what it is.
struct NamedHash {
  std::string name;
  std::uint64_t hash = 0;
};

}  // namespace lockstep
