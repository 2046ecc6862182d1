#include "lockstep/train/trainer.hpp"

#include <cmath>
#include <limits>
#include <stdexcept>

#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep::train {
namespace trainer_test {

using lockstep::testing::throws;
using lockstep::testing::world;

// Steps on a clock of the test's: on the last rank they take `slow` seconds, on the others half of that.
struct Budget : ::testing::Test {
  double now = 100;
  double slow = 0.1;
  Trainer trainer{world(), [this] { return step(); }, {.clock = [this] { return now; }}};

  StepLoss step() {
    now += world().rank() + 1 == world().size() ? slow : slow / 2;
    return {1, 1};
  }
  void warm_up() { trainer.train(2); }
};

TEST_F(Budget, is_filled_with_the_steps_of_the_slowest_rank) {
  warm_up();
  const TrainReport report = trainer.train_for(1.05);
  EXPECT_EQ(report.steps, 10);
  EXPECT_EQ(trainer.steps(), 12);
  EXPECT_NEAR(trainer.seconds_per_step(), 0.1, 1e-9);
  EXPECT_NEAR(report.seconds, world().rank() + 1 == world().size() ? 1.0 : 0.5, 1e-9);
}

TEST_F(Budget, is_not_exceeded_by_a_step_that_does_not_fit) {
  warm_up();
  EXPECT_EQ(trainer.train_for(0.09).steps, 0);
  EXPECT_EQ(trainer.train_for(0.11).steps, 1);
}

TEST_F(Budget, of_nothing_has_no_step) {
  EXPECT_EQ(trainer.train_for(0).steps, 0);
  warm_up();
  EXPECT_EQ(trainer.train_for(0).steps, 0);
}

TEST_F(Budget, has_the_first_two_steps_in_any_case) {
  slow = 50;
  EXPECT_EQ(trainer.train_for(1).steps, 1);
  slow = 0.1;
  EXPECT_EQ(trainer.train_for(1).steps, 10) << "though the first one has taken 50 seconds";
}

TEST_F(Budget, follows_steps_that_become_slower) {
  warm_up();
  slow = 0.3;
  const TrainReport report = trainer.train_for(4);
  EXPECT_LE(static_cast<double>(report.steps) * 0.3, 4 + 20 * 0.3)
      << "half of what seemed to fit, and no more";
  EXPECT_EQ(trainer.train_for(1.5).steps, 5);
}

TEST_F(Budget, is_tried_again_after_calls_without_a_step) {
  warm_up();
  slow = 1;
  trainer.train(1);
  slow = 0.1;
  int calls = 1;
  while (trainer.train_for(0.11).steps == 0) ++calls;
  EXPECT_EQ(calls, 22) << "0.9^21 · 1 s is less than 0.11 s";
  EXPECT_EQ(trainer.train_for(0.35).steps, 3);
}

TEST_F(Budget, is_the_least_that_a_rank_has) {
  warm_up();
  EXPECT_EQ(trainer.train_for(world().rank() == 0 ? 0.35 : 1000).steps, 3);
}

TEST_F(Budget, that_is_none_is_an_error_on_all_ranks) {
  const double bad = std::numeric_limits<double>::quiet_NaN();
  const bool last = world().rank() + 1 == world().size();
  const std::string where = "(rank " + std::to_string(world().size() - 1) + ")";
  EXPECT_TRUE(throws<OptionError>([&] { trainer.train_for(last ? bad : 1); }, "nan", where));
  EXPECT_TRUE(throws<OptionError>([&] { trainer.train_for(last ? -1 : 1); }, "-1", where));
  EXPECT_TRUE(throws<OptionError>([&] { trainer.train(-1); }, "-1"));
  EXPECT_EQ(trainer.steps(), 0);
  EXPECT_TRUE(throws<OptionError>([&] { Trainer(world(), nullptr); }, "function"));
}

TEST(Trainer, has_the_mean_loss_over_the_samples_of_all_ranks) {
  const int ranks = world().size();
  std::int64_t call = 0;
  // Rank 0 has no samples; rank r has r of loss 10 r in the first step, and of loss 1 in the second.
  Trainer trainer(world(), [&] {
    const double loss = call++ == 0 ? 10.0 * world().rank() : 1.0;
    return world().rank() == 0 ? StepLoss{-1000, 0} : StepLoss{loss, world().rank()};
  });
  double sum = 0, samples = 0;
  for (int rank = 1; rank < ranks; ++rank) {
    sum += rank * 10.0 * rank + rank;
    samples += 2 * rank;
  }
  const TrainReport report = trainer.train(2);
  EXPECT_EQ(report.steps, 2);
  if (ranks == 1) {
    EXPECT_TRUE(std::isnan(report.loss));
  } else {
    EXPECT_NEAR(report.loss, sum / samples, 1e-12);
  }
}

TEST(Trainer, passes_on_what_a_step_throws_and_goes_on) {
  bool fails = true;
  Trainer trainer(world(), [&]() -> StepLoss {
    if (fails) throw std::runtime_error("no step");
    return {2, 1};
  });
  EXPECT_TRUE(throws<std::runtime_error>([&] { trainer.train(3); }, "no step"));
  EXPECT_TRUE(throws<std::runtime_error>([&] { trainer.train_for(1); }, "no step"));
  EXPECT_EQ(trainer.steps(), 0);
  fails = false;
  EXPECT_EQ(trainer.train(3).loss, 2);
}

}  // namespace trainer_test
}  // namespace lockstep::train
