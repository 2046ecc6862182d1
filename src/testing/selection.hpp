#pragma once

#include "lockstep/comm/communicator.hpp"

namespace lockstep::testing {

/// Chooses the tests that run, alike on all ranks: rank 0's options and variables count. Leaves out the tests of files
/// that do not run on so many ranks, and those that are not asked for: "LOCKSTEP_TEST_NAME: FILE: SUITE.NAME" has to
/// contain one of the arguments, and a line of LOCKSTEP_TEST_ONLY, where SUITE is that of all its types. Returns whether
/// the arguments leave any; otherwise rank 0 has said on how many ranks there are some. Collective; StateError where
/// ranks have other tests.
bool select_tests(const Communicator& ranks, int argc, char** argv);

/// Prints on how many ranks the program has tests, in order: "1 2 4".
void print_declared_ranks();

}  // namespace lockstep::testing
