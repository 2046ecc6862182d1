// Tests that fail in every way there is, for harness_test.py.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

#include "lockstep/testing/mpi_test.hpp"

LOCKSTEP_TEST_RANKS(2);

namespace lockstep::testing {

bool on_rank_1() { return world().rank() == 1; }

__attribute__((noinline)) void spin_forever() {
  volatile bool forever = true;
  while (forever) {
  }
}

TEST(Fixture, passes) { EXPECT_EQ(world().all_reduce(1.0), 2.0); }

TEST(Fixture, passes_too) {}

TEST(Fixture, skips) { GTEST_SKIP() << "not today"; }

TEST(Fixture, skips_on_rank_1) {
  if (on_rank_1()) GTEST_SKIP();
}

TEST(Fixture, fails_on_rank_1) {
  EXPECT_FALSE(on_rank_1()) << "first line\nsecond line";
  world().barrier();
}

TEST(Fixture, throws_on_rank_1) {
  if (on_rank_1()) throw std::runtime_error("thrown here");
}

TEST(Fixture, hangs_on_rank_1) {
  if (on_rank_1()) spin_forever();
}

TEST(Fixture, leaves_early_on_rank_1) {
  ASSERT_FALSE(on_rank_1()) << "left here";
  world().barrier();
}

TEST(Fixture, is_killed_on_rank_1) {
  if (on_rank_1()) raise(SIGKILL);
  world().barrier();
}

TEST(Fixture, crashes_on_rank_1) {
  EXPECT_FALSE(on_rank_1()) << "noticed before";
  if (on_rank_1()) raise(SIGSEGV);
  world().barrier();
}

TEST(Fixture, misuses_mpi_on_rank_1) {
  if (on_rank_1()) MPI_Barrier(MPI_COMM_NULL);
  world().barrier();
}

TEST(Fixture, exits_on_rank_1) {
  if (on_rank_1()) _exit(0);
  world().barrier();
}

TEST(OnAllRanks, ends_with_an_assertion_of_rank_1) {
  LOCKSTEP_ON_ALL_RANKS(ASSERT_FALSE(on_rank_1()) << "asserted here");
  ADD_FAILURE() << "went on";
  world().barrier();
}

void assert_on_rank_1() { ASSERT_FALSE(on_rank_1()) << "in a function"; }

TEST(OnAllRanks, ends_with_a_function_that_rank_1_has_left) {
  assert_on_rank_1();
  LOCKSTEP_ON_ALL_RANKS();
  ADD_FAILURE() << "went on";
  world().barrier();
}

TEST(OnAllRanks, ends_with_an_exception_of_rank_1) {
  LOCKSTEP_ON_ALL_RANKS(if (on_rank_1()) throw std::runtime_error("thrown within"));
  ADD_FAILURE() << "went on";
  world().barrier();
}

TEST(OnAllRanks, ends_with_a_skip_of_rank_1) {
  LOCKSTEP_ON_ALL_RANKS(if (on_rank_1()) GTEST_SKIP() << "not on this one");
  ADD_FAILURE() << "went on";
}

TEST(OnAllRanks, goes_on_where_all_is_well_or_nothing_is_fatal) {
  int runs = 0;
  if (runs == 0)
    LOCKSTEP_ON_ALL_RANKS(++runs; ASSERT_EQ(runs, 1));
  else
    ADD_FAILURE() << "the macro is one statement";
  LOCKSTEP_ON_ALL_RANKS_OF(world(), EXPECT_FALSE(on_rank_1()) << "goes on");
  EXPECT_EQ(world().all_reduce(1.0), 2.0);
  EXPECT_TRUE(false) << "the end";
}

TEST(Flags, are_those_of_rank_0) { std::fprintf(stderr, "rank %d\n", world().rank()); }

class BadSetUp : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { EXPECT_FALSE(on_rank_1()) << "in the set-up"; }
};

TEST_F(BadSetUp, fails_with_its_suite) {}

class BadTearDown : public ::testing::Test {
 protected:
  static void TearDownTestSuite() { EXPECT_FALSE(on_rank_1()) << "in the tear-down"; }
};

TEST_F(BadTearDown, passes) {}

}  // namespace lockstep::testing
