#include "checkpoint/stop_signals.hpp"

#include <fmt/format.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <mutex>
#include <system_error>

#include "lockstep/core/error.hpp"

namespace lockstep::checkpoint {
namespace {

struct Watched {
  std::atomic<bool> received = false;
  std::atomic<int> users = 0;  // changed under `mutex`, as is `before` while there are none
  struct sigaction before = {};
};
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free,
              "handlers must not take locks");

std::array<Watched, NSIG> watched;
std::mutex mutex;

Watched& watched_of(int signal) { return watched[static_cast<std::size_t>(signal)]; }

// A handler that was set over ours, and calls ours, may in turn be what ours calls. Of this model, since
// others may take memory at the first access.
[[gnu::tls_model("initial-exec")]] thread_local bool handling = false;

void handle(int signal, siginfo_t* info, void* context) {
  Watched& own = watched_of(signal);
  own.received.store(true);
  if (handling) return;
  handling = true;
  const int error = errno;
  if ((own.before.sa_flags & SA_SIGINFO) != 0) {
    own.before.sa_sigaction(signal, info, context);
  } else if (own.before.sa_handler == SIG_DFL) {
    if (own.users.load() == 0) {  // another handler has kept ours alive
      sigaction(signal, &own.before, nullptr);
      raise(signal);
    }
  } else if (own.before.sa_handler != SIG_IGN) {
    own.before.sa_handler(signal);
  }
  errno = error;
  handling = false;
}

bool is_ours(const struct sigaction& action) {
  return (action.sa_flags & SA_SIGINFO) != 0 && action.sa_sigaction == handle;
}

void watch(int signal) {
  struct sigaction current = {};
  if (signal < 1 || signal >= NSIG || sigaction(signal, nullptr, &current) != 0) {
    throw OptionError(fmt::format("expected the number of a signal, found {}", signal));
  }
  Watched& own = watched_of(signal);
  if (own.users == 0) {
    own.received.store(false);
    // It may be ours still, where another was set over it and has gone after the last user.
    if (!is_ours(current)) own.before = current;
    struct sigaction action = {};
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
    sigfillset(&action.sa_mask);
    if (sigaction(signal, &action, nullptr) != 0) {
      throw OptionError(fmt::format("signal {} cannot be caught: {}", signal,
                                    std::generic_category().message(errno)));
    }
  }
  ++own.users;
}

void unwatch(int signal) noexcept {
  Watched& own = watched_of(signal);
  if (--own.users > 0) return;
  struct sigaction current = {};
  if (sigaction(signal, nullptr, &current) == 0 && is_ours(current)) {
    sigaction(signal, &own.before, nullptr);
  }
}

}  // namespace

StopSignals::StopSignals(const std::vector<int>& signals) {
  const std::lock_guard lock(mutex);
  try {
    for (const int signal : signals) {
      watch(signal);
      signals_.push_back(signal);
    }
  } catch (...) {
    release();
    throw;
  }
}

StopSignals::~StopSignals() {
  const std::lock_guard lock(mutex);
  release();
}

void StopSignals::release() noexcept {
  for (const int signal : signals_) unwatch(signal);
}

int StopSignals::received() const noexcept {
  for (const int signal : signals_) {
    if (watched_of(signal).received.load()) return signal;
  }
  return 0;
}

}  // namespace lockstep::checkpoint
