#include "testing/watchdog.hpp"

#include <cxxabi.h>
#include <dlfcn.h>
#include <execinfo.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace lockstep::testing {
namespace {

using namespace std::chrono_literals;

constexpr std::chrono::seconds default_limit = 60s;
constexpr int max_frames = 64;
void* frames[max_frames];
std::atomic<int> frame_count = 0;

void capture_stack(int) {
  const int saved = errno;
  frame_count = backtrace(frames, max_frames);
  errno = saved;
}

std::chrono::seconds limit_from_environment() {
  const char* text = std::getenv("LOCKSTEP_TEST_DEADLINE");
  const int seconds = text ? std::atoi(text) : 0;
  return seconds > 0 ? std::chrono::seconds(seconds) : default_limit;
}

std::string name_of(void* address) {
  Dl_info info{};
  if (!dladdr(address, &info)) return "?";
  if (info.dli_sname) {
    int status = 0;
    char* demangled = abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status);
    std::string name = demangled ? demangled : info.dli_sname;
    std::free(demangled);
    return name;
  }
  // A form that addr2line takes: functions of unnamed namespaces have no dynamic symbol.
  char offset[32];
  std::snprintf(
      offset, sizeof offset, " +0x%zx",
      reinterpret_cast<std::uintptr_t>(address) - reinterpret_cast<std::uintptr_t>(info.dli_fbase));
  return std::string(info.dli_fname) + offset;
}

// The frames between those of the signal, a handler and what calls it, and those of the framework.
std::string stack() {
  std::string text;
  constexpr int first = 2;
  for (int frame = first; frame < frame_count; ++frame) {
    const std::string name = name_of(frames[frame]);
    if (name.starts_with("testing::") || name.starts_with("void testing::")) break;
    text += "    at " + name + "\n";
  }
  return text;
}

void write_to_stderr(const std::string& text) {
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t written = write(STDERR_FILENO, text.data() + done, text.size() - done);
    if (written <= 0) return;
    done += static_cast<std::size_t>(written);
  }
}

}  // namespace

Watchdog* Watchdog::current_ = nullptr;

Watchdog::Watchdog(std::function<void(const std::string&)> last_words)
    : test_limit_(limit_from_environment()), last_words_(std::move(last_words)) {
  current_ = this;
  enter_other("the start of the program");
  // The first call loads a library, which a signal handler must not do.
  capture_stack(0);
  struct sigaction action {};
  action.sa_handler = capture_stack;
  action.sa_flags = SA_RESTART;
  sigaction(SIGRTMIN, &action, nullptr);
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) {
    struct sigaction present {};
    sigaction(signal, nullptr, &present);
    // A sanitizer that handles the signal knows more.
    if (present.sa_handler != SIG_DFL) continue;
    action.sa_handler = on_crash;
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    sigaction(signal, &action, nullptr);
  }
  thread_ = std::thread([this] { watch(); });
}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Watchdog::enter(std::string place) { enter(std::move(place), test_limit_); }

void Watchdog::enter_other(std::string place) {
  enter(std::move(place), std::max(test_limit_, default_limit));
}

void Watchdog::enter(std::string place, std::chrono::seconds limit) {
  const std::lock_guard lock(mutex_);
  place_ = std::move(place);
  waiting_ = false;
  limit_ = limit;
  deadline_ = std::chrono::steady_clock::now() + limit;
  changed_.notify_all();
}

void Watchdog::wait_for_others() {
  const std::lock_guard lock(mutex_);
  waiting_ = true;
}

void Watchdog::add_failure(const std::string& text) {
  const std::lock_guard lock(mutex_);
  failures_ += text;
}

std::string Watchdog::failures() const {
  const std::lock_guard lock(mutex_);
  return failures_;
}

void Watchdog::clear_failures() {
  const std::lock_guard lock(mutex_);
  failures_.clear();
}

void Watchdog::watch() {
  std::unique_lock lock(mutex_);
  while (!stopped_) {
    if (std::chrono::steady_clock::now() >= deadline_) expire(lock);
    changed_.wait_until(lock, deadline_);
  }
}

void Watchdog::expire(std::unique_lock<std::mutex>& lock) {
  // Ends the process all the same where the report itself gets stuck, on a lock that the watched
  // thread holds.
  alarm(5);
  frame_count = 0;
  pthread_kill(watched_, SIGRTMIN);
  for (int i = 0; i < 100 && frame_count == 0; ++i) std::this_thread::sleep_for(1ms);
  const std::string text = report("no end after " + std::to_string(limit_.count()) + " s");
  lock.unlock();
  // One rank after the other, so that their lines do not mix.
  std::this_thread::sleep_for(50ms * (rank_ % 8));
  write_to_stderr(text);
  std::this_thread::sleep_for(1s);
  last_words_(text);
  std::this_thread::sleep_for(1s);
  _exit(124);
}

std::string Watchdog::report(const std::string& headline) {
  const std::string rank = "[rank " + (rank_ < 0 ? "?" : std::to_string(rank_)) + "] ";
  std::string text = rank + headline + " in " + place_;
  if (waiting_) text += ": this rank has finished it and waits for the others";
  text += "\n" + stack();
  for (std::size_t begin = 0; begin < failures_.size();) {
    const std::size_t end = failures_.find('\n', begin);
    text += rank + failures_.substr(begin, end - begin) + "\n";
    begin = end + 1;
  }
  return text;
}

// Allocates, which may fail in a process that has lost its memory: then the alarm ends it.
void Watchdog::on_crash(int signal) {
  alarm(5);
  frame_count = backtrace(frames, max_frames);
  const char* name = sigabbrev_np(signal);
  write_to_stderr(current_->report(std::string("SIG") + (name ? name : "?")));
  raise(signal);
}

}  // namespace lockstep::testing
