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
  int provided = 0;
  check_mpi(MPI_Init_thread(&argc, &argv, MPI_THREAD_SERIALIZED, &provided), "MPI_Init_thread");
  world_.emplace(MPI_COMM_WORLD);
  WatchdogOptions options{.grace = std::chrono::seconds(5)};
  try {
    world_->agree([&] { options.signal = report_signal(); });
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

Environment::~Environment() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (!owns_mpi() || finalized) return;
  if (std::uncaught_exceptions() > exceptions_) MPI_Abort(MPI_COMM_WORLD, 1);
  watchdog_.reset();
  world_.reset();
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
  if (world_->size() > 1 && !all_arrive(*world_)) {
    std::fprintf(stderr, "error on rank %d: %s\n", rank, message.c_str());
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  std::string first = message;
  world_->broadcast(first);
  if (rank == 0) {
    std::fprintf(stderr, "error: %s\n", message.c_str());
  } else if (message != first) {
    std::fprintf(stderr, "error on rank %d: %s\n", rank, message.c_str());
  }
  return 1;
}

}  // namespace lockstep::mpi
