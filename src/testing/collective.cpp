#include <cstdint>
#include <exception>
#include <string>

#include "lockstep/testing/mpi_test.hpp"

namespace lockstep::testing {

bool ends_on_any_rank(const Communicator& communicator, const std::function<void()>& statements) {
  bool thrown = false;
  try {
    statements();
  } catch (const std::exception& error) {
    thrown = true;
    ADD_FAILURE() << "an exception: " << error.what();
  } catch (...) {
    thrown = true;
    ADD_FAILURE() << "an exception that is no std::exception";
  }
  const bool failed = thrown || ::testing::Test::HasFatalFailure();
  const bool skipped = ::testing::Test::IsSkipped();
  // A failure counts for more than a skip.
  const std::int64_t own = failed ? 2 : skipped ? 1 : 0;
  const std::int64_t worst = communicator.all_reduce(own, ReduceOp::max);
  if (worst == 1 && !skipped) [] { GTEST_SKIP() << "skipped on another rank"; }();
  return worst > 0;
}

}  // namespace lockstep::testing
