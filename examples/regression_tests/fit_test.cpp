#include <cmath>
#include <lockstep/testing/mpi_test.hpp>
#include <lockstep/testing/trajectory.hpp>

#include "fit.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 4);

using lockstep::testing::Trajectory;
using lockstep::testing::world;

TEST(Fit, goes_as_it_did_when_it_was_stored) {
  // Where builds and CPUs are all alike, no tolerance is needed.
  Trajectory run(TRAJECTORIES "/fit.json", world(), {.relative = 1e-3, .absolute = 1e-5});
  Fit fit(world());
  for (int epoch = 1; epoch <= 5; ++epoch) {
    run.record(epoch, "loss", fit.train_epoch());
    run.record(epoch, fit.state());
  }
  EXPECT_TRUE(run.matches());
}

TEST(Fit, learns) {
  Fit fit(world());
  const double first = fit.train_epoch();
  double last = first;
  for (int epoch = 2; epoch <= 80; ++epoch) last = fit.train_epoch();
  // A plain ASSERT would leave the other ranks in the next call that needs all.
  LOCKSTEP_ON_ALL_RANKS(ASSERT_LT(last, 0.5 * first));
  EXPECT_TRUE(std::isfinite(fit.train_epoch()));
}
