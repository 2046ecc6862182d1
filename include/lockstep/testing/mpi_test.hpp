#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <initializer_list>

#include "lockstep/comm/communicator.hpp"

/// Declares, at file scope, on how many ranks the tests of this file run. Those of other files of the
/// same program are left out on that number of ranks.
///
/// Every rank runs the same tests in the same order. A test fails on all ranks when it fails on
/// one, and one that does not end within LOCKSTEP_TEST_DEADLINE seconds (60 where that is not set)
/// ends the job, with a report of where each rank is. GTEST_SKIP must be reached by all ranks or by
/// none.
#define LOCKSTEP_TEST_RANKS(...)                                      \
  static const ::lockstep::testing::DeclaredRanks LOCKSTEP_TEST_JOIN( \
      lockstep_declared_ranks_, __COUNTER__)(__FILE__, {__VA_ARGS__})
#define LOCKSTEP_TEST_JOIN(a, b) LOCKSTEP_TEST_JOIN_EXPANDED(a, b)
#define LOCKSTEP_TEST_JOIN_EXPANDED(a, b) a##b

/// Runs statements, such as `ASSERT_EQ(found, expected) << step`, and then returns on all ranks where the test has failed
/// fatally, by ASSERT or an exception, or was skipped on any: a plain ASSERT returns on one rank, and leaves the
/// others waiting in the next collective call. In a function that returns void; collective over world().
#define LOCKSTEP_ON_ALL_RANKS(...) \
  LOCKSTEP_ON_ALL_RANKS_OF(::lockstep::testing::world(), __VA_ARGS__)
/// The same, collective over a communicator that not all ranks have.
#define LOCKSTEP_ON_ALL_RANKS_OF(communicator, ...)                                \
  switch (0)                                                                       \
  case 0:                                                                          \
  default:                                                                         \
    if (::lockstep::testing::ends_on_any_rank(communicator, [&] { __VA_ARGS__; })) \
      return;                                                                      \
    else                                                                           \
      static_cast<void>(0)

#pragma GCC visibility push(default)

namespace lockstep::testing {

/// All ranks of the test. Valid from the start of the first test to the end of the last.
const Communicator& world();

/// Whether a test is over on any rank once `statements` have run; see LOCKSTEP_ON_ALL_RANKS. Collective.
bool ends_on_any_rank(const Communicator& communicator, const std::function<void()>& statements);

struct DeclaredRanks {
  DeclaredRanks(const char* file, std::initializer_list<int> counts);
};

}  // namespace lockstep::testing

#pragma GCC visibility pop
