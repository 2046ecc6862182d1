#include "comm/watchdog_thread.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <exception>

#include "comm/place.hpp"
#include "core/blocked_signals.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep::comm {
namespace {

// What is added to the counter that the thread waits for: for its end, for each signal, for each deadline, and for what
// ends the process.
constexpr std::uint64_t wake_to_stop = 1, wake_to_report = 1 << 16,
                        wake_to_end = std::uint64_t{1} << 32, wake_to_fall = std::uint64_t{1} << 48;

std::atomic<int> wake_descriptor = -1;

void wake_watchdog(int descriptor, std::uint64_t value) {
  static_cast<void>(!write(descriptor, &value, sizeof value));
}

void wake_by_signal(int) {
  const int saved = errno;
  wake_watchdog(wake_descriptor, wake_to_report);
  errno = saved;
}

void print_to_stderr(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(STDERR_FILENO, text.data(), text.size());
    if (written <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

// Held while it reports, so that it does not go meanwhile.
std::mutex watchdog_mutex;
WatchdogThread* current_watchdog = nullptr;

std::string describe_fall(int rank, int signal, const std::vector<std::string>& stack) {
  const std::int64_t steps = Place::now().steps;
  const char* name = sigabbrev_np(signal);
  std::string text =
      fmt::format("{}{} is ended by SIG{} ({})\n{}", Place::describe(rank), steps > 0 ? "," : "",
                  name == nullptr ? "?" : name, sigdescr_np(signal), describe_stack(stack));
  text.pop_back();
  return text;
}

// Of ranks to which SIGTERM has come, and others that have not said so.
std::string describe_termination(const std::vector<RankState>& states) {
  std::vector<const RankState*> gone;
  for (const RankState& state : states) {
    if (!state.answers && state.what != still_runs) gone.push_back(&state);
  }
  const std::string headline =
      gone.empty() ? "SIGTERM has come to some of the ranks, and ends them:"
                   : fmt::format("{} {} gone, and SIGTERM ends the others:", list_ranks(gone),
                                 gone.size() == 1 ? "has" : "have");
  return describe_ranks(headline, states);
}

int make_eventfd() {
  const int descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (descriptor < 0) throw StateError("a watchdog needs an eventfd, of which there is none");
  return descriptor;
}

}  // namespace

WatchdogThread::WatchdogThread(const Communicator& ranks, const mpi::WatchdogOptions& options)
    : peers_(ranks), options_(options), wake_(-1) {
  try {
    ranks.agree([&] {
      wake_ = make_eventfd();
      wake_descriptor = wake_;
      const BlockedSignals blocked;
      thread_ = std::thread([this] { run(); });
    });
  } catch (...) {
    stop();
    throw;
  }
  if (options_.signal != 0) {
    struct sigaction action {};
    action.sa_handler = wake_by_signal;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(options_.signal, &action, &before_);
  }
  if (options_.fatal_signals) fatal_signals_.emplace(wake_, wake_to_fall);
  MPI_Comm_group(ranks.handle(), &group_);
  const std::lock_guard lock(watchdog_mutex);
  current_watchdog = this;
}

WatchdogThread::~WatchdogThread() {
  {
    const std::lock_guard lock(watchdog_mutex);
    current_watchdog = nullptr;
  }
  if (options_.signal != 0) sigaction(options_.signal, &before_, nullptr);
  fatal_signals_.reset();
  stop();
  free_group();
}

void WatchdogThread::free_group() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (finalized == 0 && group_ != MPI_GROUP_NULL) MPI_Group_free(&group_);
}

void WatchdogThread::leave() {
  expect_end();
  peers_.leave();
  free_group();
}

void WatchdogThread::stop() {
  wake_descriptor = -1;
  if (thread_.joinable()) {
    wake_watchdog(wake_, wake_to_stop);
    thread_.join();
  }
  if (wake_ >= 0) close(wake_);
}

WatchdogThread* WatchdogThread::current() noexcept {
  const std::lock_guard lock(watchdog_mutex);
  return current_watchdog;
}

void WatchdogThread::run() {
  for (;;) {
    std::array<pollfd, 2> ready{{{peers_.descriptor(), POLLIN, 0}, {wake_, POLLIN, 0}}};
    poll(ready.data(), ready.size(), milliseconds_to_end());
    std::uint64_t value = 0;
    if (read(wake_, &value, sizeof value) == sizeof value) {
      if (value % wake_to_report != 0) return;
      if (value % wake_to_end != 0) report_on_signal();
      if (value / wake_to_fall != 0) report_fall();
    }
    if (peers_.serve() && options_.grace.count() > 0) end_process("another rank of this host");
    if (milliseconds_to_end() == 0) end_process("its watchdog");
  }
}

// As poll() takes it: -1 where there is none.
int WatchdogThread::milliseconds_to_end() {
  const std::lock_guard lock(mutex_);
  if (end_ == Clock::time_point::max()) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(end_ - Clock::now());
  return static_cast<int>(std::max(left.count(), std::chrono::milliseconds::rep{0}));
}

void WatchdogThread::report_on_signal() {
  try {
    const auto states = peers_.collect(WatchdogPeers::Reason::signal, true);
    if (states) print_to_stderr(describe_ranks("where the ranks are:", *states));
  } catch (const std::exception&) {
    // Without memory or sockets there is no report.
  }
}

// Not by exit(), whose handlers may wait for what other threads hold.
void WatchdogThread::end_process(std::string_view reason) {
  try {
    print_to_stderr(fmt::format(
        "rank {} on {} is ended by {}, since MPI_Abort has not done so in {} s\n", peers_.rank(),
        peers_.host(), reason, static_cast<double>(options_.grace.count()) / 1000));
    peers_.end_host();
  } catch (const std::exception&) {
    // It is ended all the same.
  }
  _exit(1);
}

void WatchdogThread::report_deadline(const std::string& message) {
  if (options_.grace.count() > 0) {
    const std::lock_guard lock(mutex_);
    end_ = Clock::now() + options_.grace;
    wake_watchdog(wake_, wake_to_end);
  }
  const auto states = peers_.collect(WatchdogPeers::Reason::deadline, false);
  if (!states) return;
  print_to_stderr(describe_ranks(fmt::format("a deadline has passed: {}", message), *states));
}

void WatchdogThread::report_fall() {
  const std::optional<FatalSignals::Fall> fall = fatal_signals_->take();
  if (!fall) return;
  // By then the others wait, if they are to.
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  try {
    if (fall->signal != SIGTERM) {
      print_failure(describe_fall(peers_.rank(), fall->signal, fall->stack), true);
    } else if (!expects_end_ && !peers_.was_reported()) {
      if (const auto states = peers_.end_together()) print_to_stderr(describe_termination(*states));
    }
  } catch (const std::exception&) {
    // It ends without a word.
  }
  fatal_signals_->end();
}

std::vector<RankState> WatchdogThread::others(std::vector<RankState> states) const {
  states.erase(states.begin() + peers_.rank());
  return states;
}

// Where the others are is said once.
void WatchdogThread::print_failure(const std::string& headline, bool serve) {
  std::optional<std::vector<RankState>> states;
  if (!peers_.was_reported()) states = peers_.collect(WatchdogPeers::Reason::failure, serve);
  print_to_stderr(describe_ranks(headline, states ? others(*states) : std::vector<RankState>()));
}

void WatchdogThread::report_failure(const std::string& message) {
  print_failure(fmt::format("error on {}: {}", Place::describe(peers_.rank()), message), false);
}

bool WatchdogThread::has_left(MPI_Comm communicator, int rank) const {
  if (group_ == MPI_GROUP_NULL) return false;
  MPI_Group group = MPI_GROUP_NULL;
  MPI_Comm_group(communicator, &group);
  int place = MPI_UNDEFINED;
  MPI_Group_translate_ranks(group, 1, &rank, group_, &place);
  MPI_Group_free(&group);
  return place != MPI_UNDEFINED && peers_.has_left(place);
}

std::string WatchdogThread::report(std::string_view headline) {
  return describe_ranks(headline, peers_.collect(WatchdogPeers::Reason::call, false).value());
}

void report_failure(int rank, const std::string& message) noexcept try {
  const std::lock_guard lock(watchdog_mutex);
  if (current_watchdog != nullptr) return current_watchdog->report_failure(message);
  print_to_stderr(fmt::format("error on {}: {}\n", Place::describe(rank), message));
} catch (const std::exception&) {
  print_to_stderr(message);
}

bool has_left(MPI_Comm communicator, int rank) noexcept try {
  const std::lock_guard lock(watchdog_mutex);
  return current_watchdog != nullptr && current_watchdog->has_left(communicator, rank);
} catch (const std::exception&) {
  return false;
}

void report_deadline(const std::string& message) noexcept {
  const std::lock_guard lock(watchdog_mutex);
  if (current_watchdog == nullptr) return;
  try {
    current_watchdog->report_deadline(message);
  } catch (const std::exception&) {
    // The error is thrown all the same.
  }
}

}  // namespace lockstep::comm
