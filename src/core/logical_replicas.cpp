#include "lockstep/core/logical_replicas.hpp"

#include <fmt/format.h>

#include <bit>

#include "lockstep/core/error.hpp"

namespace lockstep {

void check_logical_replicas(std::int64_t replicas, int ranks) {
  const bool power = std::has_single_bit(static_cast<std::uint64_t>(replicas));
  if (replicas == 0 || (replicas >= ranks && power)) return;
  throw OptionError(
      fmt::format("expected a power of two ≥ {} ranks as the number of logical replicas, found {}",
                  ranks, replicas));
}

}  // namespace lockstep
