#pragma once

#include <sched.h>

namespace lockstep::comm {

/// What a rank does between two looks at something that another rank of its machine will change.
class Backoff {
 public:
  /// `crowded`: there are more ranks than cores, so that who spins keeps others from their work.
  explicit Backoff(bool crowded) noexcept : spins_left_(crowded ? 0 : spins) {}

  void pause() noexcept {
    if (spins_left_ == 0) {
      sched_yield();
      return;
    }
    --spins_left_;
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

 private:
  // Some microseconds, after which a call to the system costs little.
  static constexpr int spins = 200;

  int spins_left_;
};

}  // namespace lockstep::comm
