#include "core/stream_copy.hpp"

#include <cstring>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace lockstep {

void stream_copy(std::span<std::byte> to, std::span<const std::byte> from) noexcept {
  std::size_t done = 0;
#ifdef __SSE2__
  constexpr std::size_t line = 64;
  for (; done + line <= from.size(); done += line) {
    const auto* source = reinterpret_cast<const __m128i*>(from.data() + done);
    auto* target = reinterpret_cast<__m128i*>(to.data() + done);
    for (int i = 0; i < 4; ++i) _mm_stream_si128(target + i, _mm_loadu_si128(source + i));
  }
  _mm_sfence();
#endif
  std::memcpy(to.data() + done, from.data() + done, from.size() - done);
}

}  // namespace lockstep
