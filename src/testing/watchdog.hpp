#pragma once

#include <pthread.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace lockstep::testing {

/// Ends the process with status 124 when the thread that made it stays in one place for too long,
/// and says on stderr where that is and what failed there. Says the same when the process crashes.
/// One a process.
class Watchdog {
 public:
  /// `last_words` runs on the watchdog's thread, with what this rank has reported, when the others have had time to.
  explicit Watchdog(std::function<void(const std::string& report)> last_words);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  void set_rank(int rank) { rank_ = rank; }

  /// The time starts anew, at `place`, and ends after the deadline of a test.
  void enter(std::string place);
  /// The same for what is no test, where a short deadline for the tests is not meant.
  void enter_other(std::string place);
  /// What was done at the current place is done, and only the other ranks are missing.
  void wait_for_others();

  void add_failure(const std::string& text);
  std::string failures() const;
  void clear_failures();

 private:
  void enter(std::string place, std::chrono::seconds limit);
  void watch();
  [[noreturn]] void expire(std::unique_lock<std::mutex>& lock);
  std::string report(const std::string& headline);
  static void on_crash(int signal);

  static Watchdog* current_;
  const std::chrono::seconds test_limit_;
  const std::function<void(const std::string&)> last_words_;
  const pthread_t watched_ = pthread_self();
  int rank_ = -1;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool stopped_ = false;
  bool waiting_ = false;
  std::string place_;
  std::chrono::seconds limit_{};
  std::chrono::steady_clock::time_point deadline_;
  std::string failures_;
  std::thread thread_;
};

}  // namespace lockstep::testing
