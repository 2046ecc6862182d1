#pragma once

#include <gtest/gtest.h>

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

namespace lockstep::testing {

/// All ranks of the test. Valid from the start of the first test to the end of the last.
const Communicator& world();

struct DeclaredRanks {
  DeclaredRanks(const char* file, std::initializer_list<int> counts);
};

}  // namespace lockstep::testing
