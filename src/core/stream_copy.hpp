#pragma once

#include <cstddef>
#include <span>

namespace lockstep {

/// Copies bytes to memory that nobody reads soon, past the caches where the machine can: which spares reading
/// that memory first. `to` is at a 16-byte boundary; the spans have one size.
void stream_copy(std::span<std::byte> to, std::span<const std::byte> from) noexcept;

}  // namespace lockstep
