#include "comm/stall_report.hpp"

#include <algorithm>
#include <string>

#include "lockstep/testing/mpi_test.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::stall_report_test {

using comm::describe_ranks;
using comm::RankState;

RankState waits(int rank, const std::string& host, const std::string& what, double seconds,
                std::int64_t steps = 0) {
  return {
      .rank = rank, .host = host, .what = what, .seconds = seconds, .steps = steps, .stack = {}};
}

TEST(StallReport, has_a_line_for_all_ranks_of_which_the_same_can_be_said) {
  EXPECT_EQ(describe_ranks("late:", {waits(0, "a", "rank 3", 2.4), waits(1, "a", "rank 3", 3.6),
                                     waits(2, "a", "rank 3", 1), waits(3, "b", "rank 4", 1),
                                     waits(4, "a", "rank 3", 1), waits(5, "b", "rank 3", 1),
                                     waits(6, "b", "rank 3", 1, 7)}),
            "late:\n"
            "  ranks 0-2, 4 on a wait for rank 3, since 4 s\n"
            "  rank 3 on b waits for rank 4, since 1 s\n"
            "  rank 5 on b waits for rank 3, since 1 s\n"
            "  rank 6 on b, after 7 steps, waits for rank 3, since 1 s\n");
}

TEST(StallReport, names_functions_of_ranks_that_do_not_wait) {
  RankState first{.rank = 0, .host = "a", .what = {}, .steps = 3, .stack = {"inner", "main"}};
  RankState second = first;
  second.rank = 1;
  RankState third = first;
  third.rank = 2;
  third.stack = {"other"};
  EXPECT_EQ(describe_ranks("late:", {first, second, third}),
            "late:\n"
            "  ranks 0, 1 on a, after 3 steps, are in code of their own\n"
            "      at inner\n"
            "      at main\n"
            "  rank 2 on a, after 3 steps, is in code of its own\n"
            "      at other\n");
  first.stack.assign(100, "again");
  const std::string text = describe_ranks("", {first});
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 14);
}

TEST(StallReport, says_why_ranks_do_not_answer) {
  RankState silent{
      .rank = 1, .host = "a", .what = "its process is stopped", .answers = false, .stack = {}};
  RankState unknown{.rank = 2, .host = "a", .what = {}, .answers = false, .stack = {}};
  RankState far{.rank = 3, .host = "b", .what = "x", .answers = false, .stack = {}};
  RankState farther = far;
  farther.rank = 4;
  EXPECT_EQ(describe_ranks("late:", {silent, unknown, far, farther}),
            "late:\n"
            "  rank 1 on a does not answer: its process is stopped\n"
            "  rank 2 on a does not answer\n"
            "  ranks 3, 4 on b do not answer: x\n");
}

}  // namespace lockstep::stall_report_test
