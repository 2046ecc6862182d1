#include "lockstep/comm/environment.hpp"

#include <mpi.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>
#include <string_view>
#include <thread>

#include "comm/check.hpp"
#include "comm/fatal_signals.hpp"
#include "comm/place.hpp"
#include "comm/watchdog_thread.hpp"
#include "lockstep/core/log.hpp"

namespace lockstep::mpi {
namespace {

bool has_watchdog() {
  const char* text = std::getenv("LOCKSTEP_WATCHDOG");
  return text == nullptr || std::string_view(text) != "0";
}

// "USR2", "SIGUSR2" or "12".
int report_signal() {
  const char* text = std::getenv("LOCKSTEP_REPORT_SIGNAL");
  if (text == nullptr || *text == '\0') return 0;
  const std::string name = text;
  for (int signal = 1; signal < NSIG; ++signal) {
    const char* known = sigabbrev_np(signal);
    if (known == nullptr) continue;
    if (name == known || name == std::string("SIG") + known || name == std::to_string(signal))
      return signal;
  }
  throw OptionError("LOCKSTEP_REPORT_SIGNAL: expected a signal such as USR2, found '" + name + "'");
}

}  // namespace

Environment::Environment(int& argc, char**& argv) : exceptions_(std::uncaught_exceptions()) {
  int initialized = 0;
  check_mpi(MPI_Initialized(&initialized), "MPI_Initialized");
  if (initialized) return;
  comm::FatalSignals::remember();
  int provided = 0;
  check_mpi(MPI_Init_thread(&argc, &argv, MPI_THREAD_SERIALIZED, &provided), "MPI_Init_thread");
  CommunicatorOptions of_world{.deadline = std::chrono::minutes(10)};
  try {
    of_world.deadline = default_deadline();
  } catch (const OptionError&) {
    refused_ = std::current_exception();
  }
  world_.emplace(MPI_COMM_WORLD, of_world);
  end_.emplace(world_->duplicate());
  WatchdogOptions options{.grace = std::chrono::seconds(5), .fatal_signals = true};
  try {
    world_->agree([&] {
      if (refused_ != nullptr) std::rethrow_exception(refused_);
      options.signal = report_signal();
    });
  } catch (const OptionError&) {
    refused_ = std::current_exception();
    return;
  }
  if (world_->all_reduce(std::int64_t{has_watchdog()}, ReduceOp::min) == 0) return;
  try {
    watchdog_ = std::make_unique<Watchdog>(*world_, options);
  } catch (const MpiError& error) {
    // A program trains as well where the system has no socket for it.
    if (world_->rank() == 0) log(LogLevel::info, error.what());
  }
}

namespace {

// mpirun of Open MPI 4.1 may hang or crash where a job is aborted while some of its ranks are in MPI_Finalize.
void await_all(const Communicator& ranks) noexcept {
  MPI_Request request = MPI_REQUEST_NULL;
  int done = MPI_Ibarrier(ranks.handle(), &request) == MPI_SUCCESS ? 0 : 1;
  for (int tests = 0; done == 0; ++tests) {
    if (MPI_Test(&request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS) return;
    if (tests > 100) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace

Environment::~Environment() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (!owns_mpi() || finalized) return;
  if (std::uncaught_exceptions() > exceptions_) MPI_Abort(MPI_COMM_WORLD, 1);
  if (watchdog_ != nullptr) watchdog_->thread_->leave();
  await_all(*end_);
  end_.reset();
  world_.reset();
#ifdef MPICH_VERSION
  // Ranks of MPICH 4.0 on different hosts take leave in MPI_Finalize by messages over UCX that the other one answers: until
  // it has its own answers, and then never again. So one that comes later may wait for ever. After the barrier above some
  // come later than others, and from this they come at about the same time.
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
#endif
  MPI_Finalize();
}

namespace {

// Whether every rank comes here within a second.
bool all_arrive(const Communicator& world) {
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Ibarrier(world.handle(), &request), "MPI_Ibarrier");
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(1);
  for (;;) {
    int done = 0;
    check_mpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
    if (done) return true;
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace

int Environment::run(const std::function<int()>& main) const {
  try {
    if (refused_ != nullptr) std::rethrow_exception(refused_);
    return main();
  } catch (const Error& error) {
    if (owns_mpi()) return report(error.what());
    if (!error.collective()) throw;
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (rank == 0) std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  } catch (...) {
    if (!owns_mpi()) throw;
    return report(describe_current_exception().message);
  }
}

int Environment::report(const std::string& message) const {
  const int rank = world_->rank();
  if (world_->size() > 1) comm::Place::wait_for("the other ranks to fail as well", 0);
  if (world_->size() > 1 && !all_arrive(*world_)) {
    comm::report_failure(rank, message);
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  if (watchdog_ != nullptr) watchdog_->thread_->expect_end();
  std::string first = message;
  world_->broadcast(first);
  if (rank == 0) {
    const std::string made = comm::describe_steps(comm::Place::now().steps);
    std::fprintf(stderr, "error%s%s: %s\n", made.empty() ? "" : " ", made.c_str(), message.c_str());
  } else if (message != first) {
    std::fprintf(stderr, "error on %s: %s\n", comm::Place::describe(rank).c_str(), message.c_str());
  }
  return 1;
}

}  // namespace lockstep::mpi
