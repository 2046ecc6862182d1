#include "comm/fatal_signals.hpp"

#include <execinfo.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <span>
#include <utility>

#include "comm/stack_probe.hpp"

namespace lockstep::comm {
namespace {

constexpr std::array fatal_signals{SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTERM};

std::array<struct sigaction, fatal_signals.size()> fatal_before;
bool has_remembered = false;

std::atomic<int> fatal_wake = -1;
std::atomic<std::uint64_t> fatal_wake_value = 0;
std::atomic<int> fatal_signal = 0;
std::atomic<bool> fall_is_told = false;
std::array<void*, 48> fatal_frames;
int fatal_frame_count = 0;

stack_t stack_before;
alignas(16) std::array<std::byte, std::size_t{64} << 10> fatal_stack;

void restore(int signal) {
  for (std::size_t i = 0; i < fatal_signals.size(); ++i) {
    if (fatal_signals[i] == signal) sigaction(signal, &fatal_before[i], nullptr);
  }
}

void tell_watchdog() {
  const std::uint64_t value = fatal_wake_value;
  static_cast<void>(!write(fatal_wake, &value, sizeof value));
}

void on_fault(int signal, siginfo_t* info, void*) {
  int none = 0;
  if (fatal_signal.compare_exchange_strong(none, signal)) {
    fatal_frame_count = backtrace(fatal_frames.data(), static_cast<int>(fatal_frames.size()));
    tell_watchdog();
  }
  // As long as a report takes where ranks do not answer, or what is told is that another thread has fallen.
  constexpr timespec pause{.tv_sec = 0, .tv_nsec = 10'000'000};
  for (int i = 0; i < 250 && !fall_is_told; ++i) nanosleep(&pause, nullptr);
  restore(signal);
  // The fault comes again by itself, with all that the system says of it, unless it was sent.
  if (info->si_code <= 0) raise(signal);
}

void on_termination(int signal, siginfo_t*, void*) {
  struct sigaction current {};
  sigaction(signal, nullptr, &current);
  // A handler that was set over this one, and calls it, decides.
  if ((current.sa_flags & SA_SIGINFO) == 0 || current.sa_sigaction != on_termination) return;
  int none = 0;
  const int error = errno;
  if (fatal_signal.compare_exchange_strong(none, signal)) tell_watchdog();
  errno = error;
}

}  // namespace

void FatalSignals::remember() {
  for (std::size_t i = 0; i < fatal_signals.size(); ++i) {
    sigaction(fatal_signals[i], nullptr, &fatal_before[i]);
  }
  has_remembered = true;
}

FatalSignals::FatalSignals(int wake, std::uint64_t value) {
  const bool asked_for = !has_remembered;
  if (asked_for) remember();
  fatal_wake_value = value;
  fatal_wake = wake;
  fatal_signal = 0;
  fall_is_told = false;
  stack_t stack{};
  sigaltstack(nullptr, &stack_before);
  if ((stack_before.ss_flags & SS_DISABLE) != 0) {
    stack.ss_sp = fatal_stack.data();
    stack.ss_size = fatal_stack.size();
    sigaltstack(&stack, nullptr);
  }
  for (std::size_t i = 0; i < fatal_signals.size(); ++i) {
    const bool fault = fatal_signals[i] != SIGTERM;
    const struct sigaction& before = fatal_before[i];
    const bool default_before = (before.sa_flags & SA_SIGINFO) == 0 && before.sa_handler == SIG_DFL;
    if (!default_before && !(fault && asked_for)) continue;
    struct sigaction action {};
    action.sa_sigaction = fault ? on_fault : on_termination;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(fatal_signals[i], &action, nullptr);
  }
}

FatalSignals::~FatalSignals() {
  for (const int signal : fatal_signals) {
    struct sigaction current {};
    sigaction(signal, nullptr, &current);
    const bool ours = (current.sa_flags & SA_SIGINFO) != 0 &&
                      (current.sa_sigaction == on_fault || current.sa_sigaction == on_termination);
    if (ours) restore(signal);
  }
  if ((stack_before.ss_flags & SS_DISABLE) != 0) sigaltstack(&stack_before, nullptr);
  fatal_wake = -1;
  has_remembered = false;
}

std::optional<FatalSignals::Fall> FatalSignals::take() {
  const int signal = fatal_signal;
  if (signal == 0 || std::exchange(taken_, true)) return {};
  Fall fall{.signal = signal, .stack = {}};
  if (signal != SIGTERM) {
    fall.stack =
        function_names(std::span(fatal_frames).first(static_cast<std::size_t>(fatal_frame_count)));
  }
  return fall;
}

void FatalSignals::end() const {
  fall_is_told = true;
  if (fatal_signal != SIGTERM) return;
  restore(SIGTERM);
  kill(getpid(), SIGTERM);
}

}  // namespace lockstep::comm
