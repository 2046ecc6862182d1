// Programs of which watchdog_test.py wants to know what they report: watchdog_fixture MODE.

#include <mpi.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>

#include "lockstep/autograd/operations.hpp"
#include "lockstep/comm/environment.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/parallel/gradient_reducer.hpp"

[[gnu::noinline]] void loop_in_code_of_its_own() {
  const volatile bool forever = true;
  while (forever) {
  }
}

[[gnu::noinline]] void write_to_null() {
  volatile int* const null = nullptr;
  *null = 1;
}

[[gnu::noinline]] int recurse_for_ever(const volatile int* above) {
  const volatile int own[1000] = {*above};
  return *above == 0 ? recurse_for_ever(own) + own[1] : 0;
}

namespace {

using namespace lockstep;

std::atomic<bool> abort_is_lost = false;

const CommunicatorOptions two_seconds{.deadline = std::chrono::seconds(2)};

void leave_by_handler(int) { _exit(7); }

int wait_for_rank_1(const std::string& mode) {
  const Communicator ranks(MPI_COMM_WORLD, two_seconds);
  ranks.barrier();
  if (ranks.rank() == 1) {
    std::this_thread::sleep_for(std::chrono::milliseconds(500));  // until the others wait
    if (mode == "segfaults") write_to_null();
    if (mode == "aborts") std::abort();
    if (mode == "overflows") {
      const volatile int none = 0;
      return recurse_for_ever(&none);
    }
    if (mode == "another thread segfaults") std::thread(write_to_null).join();
    if (mode == "throws in a thread") {
      std::thread([] { throw std::runtime_error("nobody catches this"); }).join();
    }
    if (mode == "stops") raise(SIGSTOP);
    if (mode == "sleeps") std::this_thread::sleep_for(std::chrono::seconds(60));
    loop_in_code_of_its_own();
  }
  ranks.barrier();
  return 0;
}

int reduce_without_rank_1() {
  const Communicator ranks(MPI_COMM_WORLD, two_seconds);
  Parameter weight("weight", Tensor::zeros({300})), bias("bias", Tensor::zeros({3}));
  GradientReducer reducer({weight, bias}, ranks);
  for (int step = 1;; ++step) {
    if (step == 3 && ranks.rank() == 1) loop_in_code_of_its_own();
    (sum(weight) + sum(bias)).backward();
  }
}

// Until the host of some is cut off.
int meet_for_ever() {
  const Communicator ranks(MPI_COMM_WORLD, two_seconds);
  for (int time = 0;; ++time) {
    ranks.barrier();
    if (time == 10 && ranks.rank() == 0) {
      std::printf("they meet\n");
      std::fflush(stdout);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

// Until it is killed.
int wait_for_signals(const std::string& mode) {
  if (mode == "waits with a handler") std::signal(SIGTERM, leave_by_handler);
  const Communicator ranks(MPI_COMM_WORLD);
  ranks.barrier();
  std::printf("%d\n", getpid());
  std::fflush(stdout);
  if (ranks.rank() == 1) loop_in_code_of_its_own();
  ranks.barrier();
  return 0;
}

// Where the host began MPI, it decides.
int go_on_after_a_deadline() {
  const Communicator ranks(MPI_COMM_WORLD, two_seconds);
  {
    const mpi::Watchdog watchdog(ranks);
    try {
      const mpi::Watchdog another(ranks);
      std::printf("there are two\n");
    } catch (const StateError& error) {
      std::printf("rank %d: %s\n", ranks.rank(), error.what());
    }
    if (ranks.rank() == 1) {
      std::this_thread::sleep_for(std::chrono::seconds(4));
    } else {
      try {
        ranks.barrier();
      } catch (const DeadlineError& error) {
        std::printf("rank %d goes on\n", ranks.rank());
      }
    }
    std::printf("%s",
                watchdog.report("asked by rank " + std::to_string(ranks.rank()) + ":").c_str());
  }
  MPI_Barrier(MPI_COMM_WORLD);
  return 0;
}

int run(const std::string& mode) {
  if (mode == "reduces") return reduce_without_rank_1();
  if (mode == "meets") return meet_for_ever();
  if (mode.starts_with("waits")) return wait_for_signals(mode);
  if (mode == "goes on") return go_on_after_a_deadline();
  abort_is_lost = mode == "is not aborted";
  return wait_for_rank_1(mode);
}

}  // namespace

extern "C" int MPI_Abort(MPI_Comm communicator, int status) {
  while (abort_is_lost) std::this_thread::sleep_for(std::chrono::seconds(1));
  return PMPI_Abort(communicator, status);
}

int main(int argc, char** argv) {
  const std::string mode = argv[1];
  if (mode == "goes on") MPI_Init(&argc, &argv);
  int status = 0;
  {
    const mpi::Environment mpi(argc, argv);
    status = mpi.run([&] { return run(mode); });
  }
  if (mode == "goes on") MPI_Finalize();
  return status;
}
