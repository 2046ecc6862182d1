// Programs for environment_test.py, chosen by the first argument.
#include <mpi.h>

#include <cstdio>
#include <optional>
#include <stdexcept>
#include <string>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/comm/environment.hpp"
#include "lockstep/core/error.hpp"

using lockstep::Communicator;
using lockstep::mpi::Environment;

namespace {

// Destroyed after MPI_Finalize.
std::optional<Communicator> outlives_mpi;

int fail_together() {
  const Communicator world(MPI_COMM_WORLD);
  world.agree([&] {
    if (world.rank() == 1) throw lockstep::DataError("no such file");
  });
  return 0;
}

int throw_on_the_last_rank() {
  const Communicator world(MPI_COMM_WORLD);
  if (world.rank() == world.size() - 1) throw std::runtime_error("out of luck");
  return 0;
}

int leave_the_others_waiting() {
  throw_on_the_last_rank();
  Communicator(MPI_COMM_WORLD).barrier();
  return 0;
}

int fail_everywhere(bool alike) {
  const Communicator world(MPI_COMM_WORLD);
  throw std::runtime_error(alike ? "no luck" : "no luck at " + std::to_string(world.rank()));
}

// One half of the ranks agrees on an error, and the other half waits for it.
int fail_in_a_group() {
  const Communicator world(MPI_COMM_WORLD);
  MPI_Comm half = MPI_COMM_NULL;
  MPI_Comm_split(world.handle(), world.rank() * 2 / world.size(), world.rank(), &half);
  const Communicator group(half);
  MPI_Comm_free(&half);
  group.agree([&] {
    if (world.rank() * 2 >= world.size()) throw lockstep::DataError("no such file");
  });
  world.barrier();
  return 0;
}

int throw_out_of_main(int argc, char** argv) {
  try {
    const Environment environment(argc, argv);
    leave_the_others_waiting();
  } catch (const std::exception&) {
  }
  return 0;
}

int run_in_a_host(int argc, char** argv, const std::string& what) {
  MPI_Init(&argc, &argv);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  int status = 0;
  {
    const Environment environment(argc, argv);
    if (environment.owns_mpi()) return 3;
    try {
      status =
          environment.run(what == "host-fails-together" ? fail_together : throw_on_the_last_rank);
    } catch (const std::exception& error) {
      std::printf("rank %d: the host caught: %s\n", rank, error.what());
    }
  }
  int finalized = 1;
  MPI_Finalized(&finalized);
  if (finalized) return 4;
  std::printf("rank %d: the host goes on with MPI, status %d\n", rank, status);
  // Before any rank can end: the launcher stops the others when one ends with another status than 0.
  std::fflush(stdout);
  MPI_Finalize();
  return status;
}

int end_mpi_only_once(int argc, char** argv) {
  {
    const Environment environment(argc, argv);
    if (!environment.owns_mpi()) return 3;
    const Environment inner(argc, argv);
    if (inner.owns_mpi()) return 4;
    int provided = MPI_THREAD_SINGLE;
    MPI_Query_thread(&provided);
    if (provided < MPI_THREAD_SERIALIZED) return 5;
    outlives_mpi.emplace(MPI_COMM_WORLD);
    const Communicator parked(MPI_COMM_WORLD);
  }
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (!finalized) return 6;
  try {
    const Communicator late(MPI_COMM_WORLD);
  } catch (const lockstep::StateError&) {
    std::printf("ended\n");
    return 0;
  }
  return 7;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what.starts_with("host")) return run_in_a_host(argc, argv, what);
  if (what == "lifetime") return end_mpi_only_once(argc, argv);
  if (what == "unwind") return throw_out_of_main(argc, argv);
  const Environment environment(argc, argv);
  if (what == "everywhere") return environment.run([] { return fail_everywhere(true); });
  if (what == "each") return environment.run([] { return fail_everywhere(false); });
  if (what == "group") return environment.run(fail_in_a_group);
  if (what == "together") return environment.run(fail_together);
  if (what == "alone") return environment.run(leave_the_others_waiting);
  return environment.run([] { return 42; });
}
