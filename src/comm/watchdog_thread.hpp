#pragma once

#include <chrono>
#include <csignal>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "comm/watchdog_peers.hpp"
#include "lockstep/comm/watchdog.hpp"

namespace lockstep::comm {

/// Has the watchdog of this process report, if there is one, that a deadline has passed, and end the process if it is still
/// there after its grace.
void report_deadline(const std::string& message) noexcept;

/// What a Watchdog is.
class WatchdogThread {
 public:
  /// Collective.
  WatchdogThread(const Communicator& ranks, const mpi::WatchdogOptions& options);
  ~WatchdogThread();
  WatchdogThread(const WatchdogThread&) = delete;
  WatchdogThread& operator=(const WatchdogThread&) = delete;

  /// That of this process; nullptr where it has none.
  static WatchdogThread* current() noexcept;

  void report_deadline(const std::string& message);
  std::string report(std::string_view headline);

 private:
  using Clock = std::chrono::steady_clock;

  void run();
  void stop();
  void report_on_signal();
  int milliseconds_to_end();
  [[noreturn]] void end_process(std::string_view reason);

  WatchdogPeers peers_;
  mpi::WatchdogOptions options_;
  int wake_;
  struct sigaction before_ {};
  std::mutex mutex_;
  Clock::time_point end_ = Clock::time_point::max();
  std::thread thread_;
};

}  // namespace lockstep::comm
