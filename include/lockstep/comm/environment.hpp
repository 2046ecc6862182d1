#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/comm/watchdog.hpp"

#pragma GCC visibility push(default)

namespace lockstep::mpi {

/// Initialises MPI if nobody has, with MPI_THREAD_SERIALIZED, and finalises in its destructor what
/// it began. Beside a host that has its own MPI_Init it does nothing.
///
/// An Environment that began MPI has a Watchdog: where a deadline passes, or a rank fails alone, is killed or has a fault
/// such as SIGSEGV, one report says where each rank is, and a process that MPI_Abort does not reach ends 5 s later. The
/// signal that LOCKSTEP_REPORT_SIGNAL names, such as USR2, prints such a report at any time. LOCKSTEP_WATCHDOG=0 leaves it
/// out.
///
/// A destructor that runs because an exception leaves main ends the job by MPI_Abort, if this
/// object began MPI: the other ranks would wait for this one.
class Environment {
 public:
  Environment(int& argc, char**& argv);
  ~Environment();
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

  /// True where this object initialised MPI.
  bool owns_mpi() const noexcept { return world_.has_value(); }

  /// Calls a program's main function and returns its exit status; it does not where LOCKSTEP_REPORT_SIGNAL or
  /// LOCKSTEP_DEADLINE cannot be used on some rank. An exception becomes a line on stderr and the status 1. Where all ranks
  /// fail, a message that they have in common is printed once, and all return. Where others go on, which a second tells, this
  /// rank prints its message, and where the others are, and ends the job by MPI_Abort. If the host owns MPI, only what
  /// Error::collective() marks is handled, and anything else passed on.
  int run(const std::function<int()>& main) const;

 private:
  int report(const std::string& message) const;

  std::optional<Communicator> world_;  // where this object began MPI
  std::optional<Communicator> end_;    // of the same ranks, for the end alone
  std::unique_ptr<Watchdog> watchdog_;
  std::exception_ptr refused_;  // a variable, which run() says in one line
  int exceptions_;              // that were under way at construction
};

}  // namespace lockstep::mpi

#pragma GCC visibility pop
