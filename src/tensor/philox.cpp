#include "tensor/philox.hpp"

#include <algorithm>

namespace lockstep::kernels {

// philox4x32() of tensor/random.hpp, of a vector of counters.
void philox_blocks(std::uint64_t key, std::uint64_t first_block, std::int64_t blocks,
                   std::uint64_t* numbers) {
  constexpr std::int64_t lanes = 16;
  for (std::int64_t block = 0; block < blocks; block += lanes) {
    std::uint32_t c0[lanes], c1[lanes], c2[lanes] = {}, c3[lanes] = {};
    for (std::int64_t lane = 0; lane < lanes; ++lane) {
      const std::uint64_t counter = first_block + static_cast<std::uint64_t>(block + lane);
      c0[lane] = static_cast<std::uint32_t>(counter);
      c1[lane] = static_cast<std::uint32_t>(counter >> 32);
    }
    auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
    for (int round = 0; round < 10; ++round) {
      for (std::int64_t lane = 0; lane < lanes; ++lane) {
        const std::uint64_t product0 = std::uint64_t{0xD2511F53} * c0[lane];
        const std::uint64_t product1 = std::uint64_t{0xCD9E8D57} * c2[lane];
        c0[lane] = static_cast<std::uint32_t>(product1 >> 32) ^ c1[lane] ^ k0;
        c1[lane] = static_cast<std::uint32_t>(product1);
        c2[lane] = static_cast<std::uint32_t>(product0 >> 32) ^ c3[lane] ^ k1;
        c3[lane] = static_cast<std::uint32_t>(product0);
      }
      k0 += 0x9E3779B9;
      k1 += 0xBB67AE85;
    }
    const std::int64_t count = std::min(lanes, blocks - block);
    for (std::int64_t lane = 0; lane < count; ++lane) {
      *numbers++ = std::uint64_t{c1[lane]} << 32 | c0[lane];
      *numbers++ = std::uint64_t{c3[lane]} << 32 | c2[lane];
    }
  }
}

}  // namespace lockstep::kernels
