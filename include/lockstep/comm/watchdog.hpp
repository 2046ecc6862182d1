#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include "lockstep/comm/communicator.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

namespace comm {
class [[gnu::visibility("hidden")]] WatchdogThread;
}

namespace mpi {

struct WatchdogOptions {
  /// A signal at which one of the ranks that get it prints on stderr where each rank is; 0 for none. mpirun of Open MPI
  /// passes SIGUSR1 and SIGUSR2 on to all of them.
  int signal = 0;
  /// How long after a deadline that has passed the process may go on, in which MPI_Abort should end it. Then the watchdog
  /// ends it, with status 1, and those of the other ranks on its host. 0 where the program decides what becomes of it.
  std::chrono::milliseconds grace{0};
  /// Whether what ends the process is reported before it does: SIGSEGV, SIGBUS, SIGILL, SIGFPE and SIGABRT, with the functions
  /// that the rank is in, and SIGTERM where others have not got it, such as one that was killed. What was there before
  /// ends it then. SIGTERM is left to a handler that the program has, and all of them to handlers that it sets later.
  bool fatal_signals = false;
};

/// A thread of each rank that calls no MPI, and says what its rank waits for, or in which functions it is, when another
/// rank asks: by UDP datagrams, which bear a secret that the ranks share. Where a deadline passes on a rank, it asks all
/// others before the DeadlineError is thrown, and prints one report on stderr; of several such ranks, the first does.
///
/// An Environment that began MPI has one, with a grace of 5 s, the signal that LOCKSTEP_REPORT_SIGNAL names, and those fatal
/// signals for which the program had no handler before, unless LOCKSTEP_WATCHDOG is 0. Where the host began MPI, it can make
/// one. One a process: it has the handlers of `signal` and of SIGRTMIN + 1 until it goes.
class Watchdog {
 public:
  /// The thread that makes it is the one whose functions are reported. Collective; StateError where a process has one
  /// already.
  explicit Watchdog(const Communicator& ranks, const WatchdogOptions& options = {});
  /// Local.
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// Where each rank is, in lines, below a headline. Waits up to a second for those that do not answer.
  std::string report(std::string_view headline) const;

 private:
  friend class Environment;
  std::unique_ptr<comm::WatchdogThread> thread_;
};

}  // namespace mpi

}  // namespace lockstep

#pragma GCC visibility pop
