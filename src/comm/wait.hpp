#pragma once

#include <mpi.h>
#include <sched.h>

#include <chrono>
#include <memory>
#include <new>
#include <string_view>
#include <utility>

#include "lockstep/comm/communicator.hpp"

namespace lockstep::comm {

class KeptCommunicator;

/// What a rank does between two looks at something that other ranks will change, until its deadline.
class Wait {
 public:
  /// The rank is for messages, -1 where it is not known yet. `crowded`: there are more ranks than cores, so that who
  /// spins keeps others from their work.
  Wait(int rank, std::chrono::milliseconds deadline, bool crowded) noexcept
      : rank_(rank), spins_left_(crowded ? 0 : spins), deadline_(deadline) {}
  /// For what is rare, and need not spin.
  explicit Wait(const Communicator& ranks) noexcept;

  ~Wait();
  Wait(const Wait&) = delete;
  Wait& operator=(const Wait&) = delete;

  /// False where there is no time left.
  bool pause() noexcept {
    if (spins_left_ == 0) {
      sched_yield();
      return ++yields_ % yields_between_looks != 0 || has_time();
    }
    --spins_left_;
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
    return true;
  }

  /// Has reports of where each rank is say for what this one waits: after 50 ms, and anew each second.
  template <class Describe>
  void tell(Describe describe) noexcept {
    if (!is_long_) return;
    try {
      tell_place(describe());
    } catch (...) {
      // For lack of memory: what was said before stays.
    }
  }
  /// Throws DeadlineError: this rank has waited so long for `what`. Reports before where each rank is, if there is a watchdog.
  [[noreturn]] void give_up(std::string_view what) const;

  /// Until a request is complete, which `what` describes, of that rank where one is given. Takes no memory unless it
  /// gives up.
  void finish(MPI_Request& request, const char* what, int rank = -1);
  /// The same, of a request whose memory MPI keeps where this gives up. A move of that must leave its elements where
  /// they are.
  template <class Memory>
  void finish(MPI_Request& request, Memory& memory, const char* what, int rank = -1) {
    try {
      finish(request, what, rank);
    } catch (...) {
      static_cast<void>(new Memory(std::move(memory)));
      throw;
    }
  }

 private:
  using Clock = std::chrono::steady_clock;

  // Some microseconds, after which a call to the system costs little.
  static constexpr int spins = 200;
  static constexpr unsigned yields_between_looks = 64;

  static constexpr std::chrono::milliseconds before_first_word{50}, between_words{1000};

  bool has_time() noexcept;
  void tell_place(std::string what);

  int rank_;
  int spins_left_;
  unsigned yields_ = 0;
  std::chrono::milliseconds deadline_;
  Clock::time_point begin_{};      // the first look at the clock
  Clock::time_point next_word_{};  // when is_long() is true again
  bool is_long_ = false;
  bool has_told_ = false;
  KeptCommunicator* kept_ = nullptr;
};

/// A value for a message of MPI's, on the heap as long as that has memory: a call that is given up leaves its frame to
/// others.
template <class T>
class MessageValue {
 public:
  explicit MessageValue(const T& value) : value_(value), heap_(new (std::nothrow) T(value)) {}
  T& get() noexcept { return heap_ != nullptr ? *heap_ : value_; }

 private:
  T value_;
  std::unique_ptr<T> heap_;
};

}  // namespace lockstep::comm
