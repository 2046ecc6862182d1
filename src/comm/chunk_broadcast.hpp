#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "lockstep/comm/communicator.hpp"

namespace lockstep::comm {

/// Of each chunk but the last one: stays in the cache of a core from its filling to its use.
inline constexpr std::size_t broadcast_chunk_bytes = std::size_t{512} << 10;

using FillChunk = std::function<void(std::uint64_t begin, std::span<std::byte> chunk)>;
using UseChunk = std::function<void(std::uint64_t begin, std::span<const std::byte> chunk)>;

/// Brings `bytes` bytes from rank 0, and from what ranks of its node can fill as well, to all ranks, in
/// chunks. Each is filled by one of those ranks that have a `fill`, in any order, and used by all ranks,
/// from the first to the last. They pass through memory that the ranks of a node share, where some are filled while
/// others are used; of several nodes, one rank each gets them by messages.
///
/// Collective; `bytes` must agree, and rank 0 must have a `fill`. Where one throws, no more chunks are used from there
/// on, and all ranks throw that exception as Communicator::agree does. `use` must not throw.
void broadcast_chunks(const Communicator& communicator, std::uint64_t bytes, const FillChunk& fill,
                      const UseChunk& use);

}  // namespace lockstep::comm
