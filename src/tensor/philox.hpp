#pragma once

#include <cstdint>

namespace lockstep::kernels {

/// The 64-bit numbers 2 · first_block, ... of a RandomKey, two of each block of the generator. Many blocks at a time are
/// vectorised.
void philox_blocks(std::uint64_t key, std::uint64_t first_block, std::int64_t blocks,
                   std::uint64_t* numbers);

}  // namespace lockstep::kernels
