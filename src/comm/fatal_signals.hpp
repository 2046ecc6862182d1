#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace lockstep::comm {

/// Handlers of the signals that end a process, by which the thread of a watchdog has the time to say so first: of faults, such
/// as SIGSEGV, and of SIGTERM. One a process, whose handlers stay until it goes.
class FatalSignals {
 public:
  /// To be called before MPI_Init, whose handlers print a stack of their own: these are left out then, and signals for which the
  /// program has a handler now are left to it. Otherwise a handler that there is when this is made is left SIGTERM alone, and
  /// gets faults afterwards.
  static void remember();

  /// The eventfd `wake` gets `value` when one has come. The thread that makes this may overflow its stack.
  FatalSignals(int wake, std::uint64_t value);
  ~FatalSignals();
  FatalSignals(const FatalSignals&) = delete;
  FatalSignals& operator=(const FatalSignals&) = delete;

  struct Fall {
    int signal = 0;
    std::vector<std::string> stack;  ///< of a fault: the functions, the innermost first
  };
  /// What has come; once.
  std::optional<Fall> take();

  /// The process may end now, from what has come.
  void end() const;

 private:
  bool taken_ = false;
};

}  // namespace lockstep::comm
