#include "lockstep/core/flush_denormals.hpp"

#ifdef __SSE2__
#include <xmmintrin.h>
#endif

namespace lockstep {
namespace {

using Mode = unsigned long long;

// The bits of a thread's floating-point mode that flush results, and operands.
#if defined(__SSE2__)
constexpr Mode flushing = 0x8040;

Mode floating_point_mode() noexcept { return _mm_getcsr(); }

void set_floating_point_mode(Mode mode) noexcept { _mm_setcsr(static_cast<unsigned>(mode)); }
#elif defined(__aarch64__)
constexpr Mode flushing = 1 << 24;

Mode floating_point_mode() noexcept {
  Mode mode = 0;
  asm volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
}

void set_floating_point_mode(Mode mode) noexcept { asm volatile("msr fpcr, %0" : : "r"(mode)); }
#else
constexpr Mode flushing = 0;

Mode floating_point_mode() noexcept { return 0; }

void set_floating_point_mode(Mode) noexcept {}
#endif

}  // namespace

FlushDenormals::FlushDenormals() noexcept : before_(floating_point_mode() & flushing) {
  if (before_ != flushing) set_floating_point_mode(floating_point_mode() | flushing);
}

FlushDenormals::~FlushDenormals() {
  if (before_ != flushing) set_floating_point_mode((floating_point_mode() & ~flushing) | before_);
}

}  // namespace lockstep
