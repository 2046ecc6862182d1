#pragma once

#include <mpi.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

#include "comm/fatal_signals.hpp"
#include "comm/watchdog_peers.hpp"
#include "lockstep/comm/watchdog.hpp"

namespace lockstep::comm {

/// Has the watchdog of this process report, if there is one, that a deadline has passed, and end the process if it is still
/// there after its grace.
void report_deadline(const std::string& message) noexcept;

/// Has the watchdog of this process print a failure of this rank, and where the others are; without one, the failure.
void report_failure(int rank, const std::string& message) noexcept;

/// Whether the watchdog of another rank of the communicator, asked by that of this process, says that its rank has ended MPI.
bool has_left(MPI_Comm communicator, int rank) noexcept;

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
  /// The ranks are those of the communicator that this was made of.
  void report_failure(const std::string& message);
  bool has_left(MPI_Comm communicator, int rank) const;

  /// This rank ends: that SIGTERM comes is no news.
  void expect_end() noexcept { expects_end_ = true; }
  /// The same, by MPI_Finalize: others that wait for it hear that, until this goes.
  void leave();

 private:
  using Clock = std::chrono::steady_clock;

  void run();
  void stop();
  void report_on_signal();
  void report_fall();
  void print_failure(const std::string& headline, bool serve);
  std::vector<RankState> others(std::vector<RankState> states) const;
  void free_group();
  int milliseconds_to_end();
  [[noreturn]] void end_process(std::string_view reason);

  WatchdogPeers peers_;
  mpi::WatchdogOptions options_;
  MPI_Group group_ = MPI_GROUP_NULL;
  int wake_;
  struct sigaction before_ {};
  std::optional<FatalSignals> fatal_signals_;
  std::mutex mutex_;
  Clock::time_point end_ = Clock::time_point::max();
  std::atomic<bool> expects_end_ = false;
  std::thread thread_;
};

}  // namespace lockstep::comm
