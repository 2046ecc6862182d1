#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>

#include "lockstep/comm/environment.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/listener.hpp"
#include "testing/selection.hpp"
#include "testing/watchdog.hpp"

namespace lockstep::testing {
namespace {

std::optional<Communicator> test_world;

// MPI's own handler ends the job as well, but its message is lost under mpirun -q. SIGABRT is
// reported by the watchdog. Duplicates inherit this, so that a missing MPI_ERRORS_RETURN still
// shows.
void abort_on_error(MPI_Comm*, int* code, ...) {
  char text[MPI_MAX_ERROR_STRING] = "unknown error";
  int length = 0;
  MPI_Error_string(*code, text, &length);
  std::fprintf(stderr, "MPI error that nobody handles: %s\n", text);
  std::abort();
}

void set_error_handler() {
  MPI_Errhandler handler = MPI_ERRHANDLER_NULL;
  MPI_Comm_create_errhandler(abort_on_error, &handler);
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, handler);
  MPI_Errhandler_free(&handler);
}

// What there is to say of the tests so far, in the file that --gtest_output asks for.
void write_results(const std::string& report) {
  ::testing::UnitTest& framework = *::testing::UnitTest::GetInstance();
  ::testing::TestEventListener* file = framework.listeners().default_xml_generator();
  if (file == nullptr) return;
  ADD_FAILURE() << report;
  file->OnTestIterationEnd(framework, 0);
}

int run_tests(const Communicator& control, Watchdog& watchdog, Tally& tally, int argc,
              char** argv) {
  const bool prints = control.rank() == 0;
  if (!select_tests(control, argc, argv)) {
    ++tally.failed;
    if (prints) tally.print();
    return 2;
  }
  ::testing::TestEventListeners& listeners = ::testing::UnitTest::GetInstance()->listeners();
  delete listeners.Release(listeners.default_result_printer());
  if (!prints) delete listeners.Release(listeners.default_xml_generator());
  listeners.Append(new Listener(control, watchdog, tally));
  std::int64_t status = RUN_ALL_TESTS();

  watchdog.enter_other("the end of the program");
  status = control.all_reduce(status, ReduceOp::max);
  if (status != 0 && tally.failed == 0) ++tally.failed;
  if (prints) tally.print();
  return static_cast<int>(status);
}

int run_on_all_ranks(int& argc, char**& argv) {
  Tally tally;
  int rank = 0;
  Watchdog watchdog([&](const std::string& report) {
    ++tally.failed;
    if (rank != 0) return;
    tally.print();
    write_results(report);
  });
  const mpi::Environment mpi(argc, argv);
  return mpi.run([&] {
    set_error_handler();
    test_world.emplace(MPI_COMM_WORLD);
    Communicator control(MPI_COMM_WORLD);
    rank = control.rank();
    watchdog.set_rank(rank);
    const int status = run_tests(control, watchdog, tally, argc, argv);
    control.close();
    test_world->close();
    return status;
  });
}

}  // namespace

const Communicator& world() { return test_world.value(); }

}  // namespace lockstep::testing

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (GTEST_FLAG_GET(list_tests)) return RUN_ALL_TESTS();
  if (argc == 2 && std::strcmp(argv[1], "--ranks") == 0) {
    lockstep::testing::print_declared_ranks();
    return 0;
  }
  // Checkpoints have the time of their save, by which no two have the same bytes.
  setenv("SOURCE_DATE_EPOCH", "1700000000", 0);
  return lockstep::testing::run_on_all_ranks(argc, argv);
}
