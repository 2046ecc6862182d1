#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/optim/schedule.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace schedule_options_test {

using optim::Schedule;
using testing::throws;
using namespace optim::schedule;

const double nan_value = std::numeric_limits<double>::quiet_NaN();
const double infinite = std::numeric_limits<double>::infinity();

struct BadOption {
  std::string message;
  std::function<Schedule()> make;
};

void expect_refused(const std::vector<BadOption>& cases) {
  for (const auto& [message, make] : cases) {
    EXPECT_TRUE(throws<OptionError>(make, "schedule " + message)) << message;
  }
}

TEST(ScheduleOptions, of_decays_are_checked) {
  expect_refused({
      {"constant: expected factor >= 0, found -1", [] { return constant({.factor = -1}); }},
      {"constant: expected factor >= 0, found nan", [] { return constant({.factor = nan_value}); }},
      {"constant: expected steps >= 0, found -2", [] { return constant({.steps = -2}); }},
      {"step: expected step_size >= 1, found 0", [] { return step({}); }},
      {"step: expected gamma > 0, found 0", [] { return step({.step_size = 1, .gamma = 0}); }},
      {"multi_step: expected at least one of milestones", [] { return multi_step({}); }},
      {"multi_step: expected milestones >= 0, found -1",
       [] {
         return multi_step({.milestones = {-1, 2}});
       }},
      {"multi_step: expected milestones in increasing order, found 3 after 8",
       [] {
         return multi_step({.milestones = {1, 8, 3}});
       }},
      {"multi_step: expected gamma > 0, found -0.1",
       [] { return multi_step({.milestones = {1}, .gamma = -0.1}); }},
      {"exponential: expected gamma > 0, found 0", [] { return exponential({}); }},
      {"exponential: expected gamma > 0, found inf",
       [] { return exponential({.gamma = infinite}); }},
      {"linear: expected start >= 0, found -0.5", [] { return linear({.start = -0.5}); }},
      {"linear: expected end >= 0, found nan", [] { return linear({.end = nan_value}); }},
      {"linear: expected steps >= 1, found 0", [] { return linear({.steps = 0}); }},
      {"polynomial: expected steps >= 1, found 0", [] { return polynomial({.steps = 0}); }},
      {"polynomial: expected power > 0, found 0", [] { return polynomial({.power = 0}); }},
      {"inverse_sqrt: expected warm_up >= 1, found 0", [] { return inverse_sqrt({}); }},
      {"function: expected a function, found none", [] { return function(nullptr); }},
  });
}

TEST(ScheduleOptions, of_cosines_and_cycles_are_checked) {
  expect_refused({
      {"cosine: expected steps >= 1, found 0", [] { return cosine({}); }},
      {"cosine: expected minimum >= 0, found -1",
       [] { return cosine({.steps = 1, .minimum = -1}); }},
      {"cosine_restarts: expected steps >= 1, found 0", [] { return cosine_restarts({}); }},
      {"cosine_restarts: expected multiplier >= 1, found 0",
       [] { return cosine_restarts({.steps = 1, .multiplier = 0}); }},
      {"cosine_restarts: expected minimum >= 0, found nan",
       [] { return cosine_restarts({.steps = 1, .minimum = nan_value}); }},
      {"one_cycle: expected maximum > 0, found 0", [] { return one_cycle({.steps = 9}); }},
      {"one_cycle: expected steps >= 1, found 0", [] { return one_cycle({.maximum = 1}); }},
      {"one_cycle: expected 0 <= rising <= 1, found 1.5",
       [] { return one_cycle({.maximum = 1, .steps = 9, .rising = 1.5}); }},
      {"one_cycle: expected 0 <= rising <= 0.5 with three_phase, found 0.6",
       [] { return one_cycle({.maximum = 1, .steps = 9, .rising = 0.6, .three_phase = true}); }},
      {"one_cycle: expected div_factor > 0, found 0",
       [] { return one_cycle({.maximum = 1, .steps = 9, .div_factor = 0}); }},
      {"one_cycle: expected final_div_factor > 0, found -1",
       [] { return one_cycle({.maximum = 1, .steps = 9, .final_div_factor = -1}); }},
      {"one_cycle_momentum: expected 0 <= maximum < 1, found 1",
       [] { return one_cycle_momentum({.maximum = 1, .steps = 9}); }},
      {"one_cycle_momentum: expected 0 <= minimum <= maximum, found 0.97",
       [] { return one_cycle_momentum({.minimum = 0.97, .steps = 9}); }},
      {"one_cycle_momentum: expected steps >= 1, found 0", [] { return one_cycle_momentum({}); }},
      {"one_cycle_momentum: expected 0 <= rising <= 1, found nan",
       [] { return one_cycle_momentum({.steps = 9, .rising = nan_value}); }},
  });
}

TEST(ScheduleOptions, of_plateaus_are_checked) {
  expect_refused({
      {"on_plateau: expected 0 <= factor < 1, found 1", [] { return on_plateau({.factor = 1}); }},
      {"on_plateau: expected 0 <= factor < 1, found -1", [] { return on_plateau({.factor = -1}); }},
      {"on_plateau: expected patience >= 0, found -1", [] { return on_plateau({.patience = -1}); }},
      {"on_plateau: expected 0 <= threshold < 1 where it is relative, found 1",
       [] { return on_plateau({.threshold = 1}); }},
      {"on_plateau: expected threshold >= 0, found -0.1",
       [] { return on_plateau({.threshold = -0.1, .threshold_mode = ThresholdMode::absolute}); }},
      {"on_plateau: expected cooldown >= 0, found -1", [] { return on_plateau({.cooldown = -1}); }},
      {"on_plateau: expected minimum >= 0, found -1", [] { return on_plateau({.minimum = -1}); }},
      {"on_plateau: expected eps >= 0, found inf", [] { return on_plateau({.eps = infinite}); }},
  });
  on_plateau({.threshold = 2, .threshold_mode = ThresholdMode::absolute});
}

TEST(ScheduleOptions, of_compositions_are_checked) {
  const Schedule next = exponential({.gamma = 0.9});
  expect_refused({
      {"warm_up: expected steps >= 0, found -1", [&] { return warm_up(-1, next); }},
      {"warm_up: expected start >= 0, found -0.5",
       [&] { return warm_up(5, next, {.start = -0.5}); }},
      {"sequential: expected at least one phase, found none",
       [&] { return sequential(std::vector<Phase>()); }},
      {"sequential: phase 0 has no until",
       [&] {
         return sequential({{next}, {next}});
       }},
      {"sequential: expected until > 0 of phase 0, found 0",
       [&] {
         return sequential({{next, 0}, {next}});
       }},
      {"sequential: expected until > 7 of phase 1, found 7",
       [&] {
         return sequential({{next, 7}, {next, 7}, {next}});
       }},
      {"sequential: expected no until of the last phase, found 9",
       [&] {
         return sequential({{next, 7}, {next, 9}});
       }},
      {"chained: expected at least one schedule, found none",
       [&] { return chained(std::vector<Schedule>()); }},
  });
}

TEST(ScheduleOptions, a_schedule_is_made_of_a_rule) {
  EXPECT_TRUE(throws<OptionError>([] { Schedule(std::unique_ptr<optim::ScheduleRule>()); },
                                  "expected a schedule, found none"));
}

}  // namespace schedule_options_test
}  // namespace lockstep
