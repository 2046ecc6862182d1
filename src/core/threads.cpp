#include "lockstep/core/threads.hpp"

#include <fmt/format.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <mutex>
#include <string_view>
#include <system_error>
#include <thread>

#include "core/blocked_signals.hpp"
#include "core/parallel_for.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep {
namespace {

constexpr int most_threads = 1024;

int checked_threads(std::string_view name, std::int64_t count) {
  if (count < 1 || count > most_threads) {
    throw OptionError(
        fmt::format("{}: expected a number from 1 to {}, found {}", name, most_threads, count));
  }
  return static_cast<int>(count);
}

int threads_of_environment() {
  const char* text = std::getenv("LOCKSTEP_THREADS");
  if (text == nullptr || *text == '\0') return 1;
  std::int64_t count = 0;
  const char* const end = text + std::strlen(text);
  const auto [rest, error] = std::from_chars(text, end, count);
  if (error != std::errc() || rest != end) {
    throw OptionError(fmt::format("LOCKSTEP_THREADS: expected a number from 1 to {}, found '{}'",
                                  most_threads, text));
  }
  return checked_threads("LOCKSTEP_THREADS", count);
}

std::atomic<int>& wanted_threads() {
  static std::atomic<int> count = threads_of_environment();
  return count;
}

// Set in the child of a fork, which has the memory of the workers and not the workers.
std::atomic<bool> forked = false;

// Waits while `value` is that. A thread that looks a moment longer before it sleeps goes on sooner.
void wait_while(const std::atomic<std::uint32_t>& value, std::uint32_t old) {
  for (int i = 0; i < 1000; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
#ifdef __x86_64__
    __builtin_ia32_pause();
#endif
  }
  value.wait(old, std::memory_order_acquire);
}

// What all workers do: one range each.
struct Work {
  std::int64_t n = 0;
  int ranges = 0;
  void (*call)(void*, std::int64_t, std::int64_t) = nullptr;
  void* f = nullptr;
  std::fenv_t mode{};

  void do_range(int range) const { call(f, n * range / ranges, n * (range + 1) / ranges); }
};

class Workers {
 public:
  Workers() {
    pthread_atfork(nullptr, nullptr, [] { forked = true; });
  }
  ~Workers() {
    if (forked) {
      for (Worker& worker : workers_) worker.thread.detach();
      return;
    }
    stopping_ = true;
    ++number_;
    for (Worker& worker : workers_) {
      give_order(worker);
      worker.thread.join();
    }
  }
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  // False where another thread is at it.
  bool try_run(Work work) {
    const std::unique_lock alone(mutex_, std::try_to_lock);
    if (!alone.owns_lock() || forked) return false;
    start(work.ranges - 1);
    work.ranges = std::min(work.ranges, static_cast<int>(workers_.size()) + 1);
    std::fegetenv(&work.mode);
    work_ = work;
    failure_ = nullptr;
    running_.store(static_cast<std::uint32_t>(work.ranges - 1), std::memory_order_relaxed);
    ++number_;
    for (int i = 0; i < work.ranges - 1; ++i) {
      give_order(workers_[static_cast<std::size_t>(i)]);
    }
    do_range(0);
    while (const std::uint32_t left = running_.load(std::memory_order_acquire)) {
      wait_while(running_, left);
    }
    if (failure_) std::rethrow_exception(failure_);
    return true;
  }

  static thread_local bool is_at_work;

 private:
  struct Worker {
    std::atomic<std::uint32_t> order = 0;  // number of the work to do
    std::thread thread;
  };

  void give_order(Worker& worker) {
    worker.order.store(number_, std::memory_order_release);
    worker.order.notify_one();
  }

  // As many as there can be.
  void start(int count) {
    const BlockedSignals blocked;
    while (static_cast<int>(workers_.size()) < count) {
      const int range = static_cast<int>(workers_.size()) + 1;
      Worker& worker = workers_.emplace_back();
      worker.order = number_;
      try {
        worker.thread =
            std::thread([this, range, &worker, number = number_] { run(range, worker, number); });
      } catch (const std::system_error&) {
        workers_.pop_back();
        break;
      }
    }
  }

  void run(int range, const Worker& worker, std::uint32_t last) {
    is_at_work = true;
    for (;;) {
      wait_while(worker.order, last);
      last = worker.order.load(std::memory_order_acquire);
      if (stopping_) return;
      std::fesetenv(&work_.mode);
      do_range(range);
      if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) running_.notify_one();
    }
  }

  void do_range(int range) {
    try {
      work_.do_range(range);
    } catch (...) {
      const std::lock_guard lock(failure_mutex_);
      if (!failure_) failure_ = std::current_exception();
    }
  }

  std::mutex mutex_;
  std::deque<Worker> workers_;
  Work work_;
  std::uint32_t number_ = 0;
  bool stopping_ = false;
  std::atomic<std::uint32_t> running_ = 0;
  std::mutex failure_mutex_;
  std::exception_ptr failure_;
};

thread_local bool Workers::is_at_work = false;

}  // namespace

int threads() { return wanted_threads(); }

void set_threads(int count) { wanted_threads() = checked_threads("set_threads", count); }

void detail::parallel_for(std::int64_t n, void (*call)(void*, std::int64_t, std::int64_t),
                          void* f) {
  const int ranges = static_cast<int>(std::min<std::int64_t>(threads(), n));
  if (ranges > 1 && !Workers::is_at_work) {
    static Workers workers;
    Workers::is_at_work = true;
    struct Restore {
      ~Restore() { Workers::is_at_work = false; }
    } restore;
    if (workers.try_run({.n = n, .ranges = ranges, .call = call, .f = f})) return;
  }
  if (n > 0) call(f, 0, n);
}

}  // namespace lockstep
