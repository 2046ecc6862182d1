#include "lockstep/parallel/straggler_check.hpp"

#include <chrono>
#include <string>
#include <thread>

#include "lockstep/autograd/operations.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/log.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace straggler_check_test {

using testing::Log;
using testing::throws;
using testing::world;

class StragglerCheckTest : public ::testing::Test {
 protected:
  // Where `slow` is no rank, all take as long.
  void train(StragglerCheck& check, int steps, int slow, int milliseconds) {
    for (int step = 0; step < steps; ++step) {
      if (world().rank() == slow)
        std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
      sum(weight_).backward();
      check.step();
    }
  }

  Parameter weight_{"weight", Tensor::zeros({3})};
  GradientReducer reducer_{{weight_}, world()};
};

TEST_F(StragglerCheckTest, names_the_rank_for_which_the_others_wait) {
  const int last = world().size() - 1;
  StragglerCheck check(reducer_, {.every = 5, .lost = 0.5});
  const Log log;
  train(check, 10, last, 40);
  if (last == 0) {
    EXPECT_TRUE(check.stragglers().empty());
    return;
  }
  ASSERT_EQ(check.stragglers().size(), 1U);
  const Straggler& found = check.stragglers().front();
  EXPECT_EQ(found.rank, last);
  EXPECT_GT(found.lost, 0.5);
  EXPECT_GT(found.share, 0.5);
  EXPECT_LE(found.share, 1);
  EXPECT_FALSE(found.host.empty());
  // Once, though both checks have found it.
  ASSERT_EQ(log.lines().size(), world().rank() == 0 ? 1U : 0U);
  if (world().rank() != 0) return;
  const std::string expected = "rank " + std::to_string(last) + " on " + found.host +
                               " is slow: the others have waited for it ";
  EXPECT_NE(log.lines().front().find(expected), std::string::npos) << log.lines().front();
}

TEST_F(StragglerCheckTest, a_rank_that_is_slow_now_and_then_is_found) {
  if (world().size() == 1) return;
  StragglerCheck check(reducer_, {.every = 1000, .lost = 0.5});
  for (int time = 0; time < 3; ++time) {
    train(check, 3, -1, 0);
    train(check, 1, 1, 60);
  }
  ASSERT_EQ(check.check().size(), 1U);
  EXPECT_EQ(check.stragglers().front().rank, 1);
}

TEST_F(StragglerCheckTest, several_are_found) {
  if (world().size() < 4) return;
  StragglerCheck check(reducer_, {.every = 6, .lost = 0.25});
  for (int step = 0; step < 6; ++step) {
    if (world().rank() >= 2) std::this_thread::sleep_for(std::chrono::milliseconds(40));
    train(check, 1, -1, 0);
  }
  ASSERT_EQ(check.stragglers().size(), 2U);
  EXPECT_EQ(check.stragglers()[0].rank + check.stragglers()[1].rank, 2 + 3);
}

TEST_F(StragglerCheckTest, ranks_that_are_alike_are_not_and_one_is_not_for_ever) {
  if (world().size() == 1) return;
  StragglerCheck check(reducer_, {.every = 5, .lost = 0.5});
  train(check, 5, 0, 40);
  EXPECT_EQ(check.stragglers().size(), 1U);
  for (int step = 0; step < 5; ++step) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    train(check, 1, -1, 0);
  }
  EXPECT_TRUE(check.stragglers().empty());
}

TEST_F(StragglerCheckTest, refuses_options_that_differ_or_are_out_of_range) {
  EXPECT_TRUE(throws<OptionError>([&] { StragglerCheck(reducer_, {.every = 0}); }, "every >= 1",
                                  "found 0"));
  EXPECT_TRUE(throws<OptionError>([&] { StragglerCheck(reducer_, {.lost = 0}); }, "0 < lost < 1",
                                  "found 0"));
  EXPECT_TRUE(throws<OptionError>([&] { StragglerCheck(reducer_, {.lost = 1}); }, "0 < lost < 1",
                                  "found 1"));
  if (world().size() == 1) return;
  const auto unlike = [&] { StragglerCheck(reducer_, {.every = world().rank() == 0 ? 5 : 6}); };
  EXPECT_TRUE(throws<OptionError>(unlike, "differently", "every", "rank 0"));
}

}  // namespace straggler_check_test
}  // namespace lockstep
