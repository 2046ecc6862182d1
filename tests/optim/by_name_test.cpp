#include "lockstep/optim/by_name.hpp"

#include <string>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::optim {
namespace by_name_test {

using lockstep::testing::throws;

TEST(ByName, every_rule_is_found_under_its_name_with_its_defaults) {
  for (const char* name : {"Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "ASGD", "LAMB", "LARS",
                           "Lion", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD"}) {
    EXPECT_EQ(make_rule(name)->name(), name);
  }
  EXPECT_TRUE(bit_equal(make_rule("AdamW")->options(), AdamW().options()));
}

TEST(ByName, numbers_become_what_a_hyper_parameter_is) {
  const auto rule = make_rule("Adam", {{"lr", 1}, {"amsgrad", 1.0}, {"beta1", 0.5}});
  EXPECT_EQ(rule->get("lr").as_double(), 1.0);
  EXPECT_TRUE(rule->get("amsgrad").as_bool());
  EXPECT_EQ(rule->get("beta1").as_double(), 0.5);
  EXPECT_TRUE(throws<NameError>([] { make_rule("Adam", {{"momentum", 0.5}}); }, "beta1"));
  EXPECT_TRUE(throws<OptionError>([] { make_rule("Adam", {{"amsgrad", 0.5}}); }, "amsgrad", "0.5"));
  EXPECT_TRUE(throws<OptionError>([] { make_rule("Adam", {{"lr", -1}}); }, "lr"));
  EXPECT_TRUE(throws<OptionError>([] { make_rule("Adam", {{"lr", "fast"}}); }, "lr"));
  EXPECT_TRUE(throws<NameError>([] { make_rule("adam"); }, "'adam'", "Adam, AdamW"));
}

TEST(ByName, bad_hyper_parameters_change_nothing) {
  Adam adam;
  const StateDict before = adam.options();
  EXPECT_TRUE(throws<OptionError>([&] { set_by_name(adam, {{"lr", 5}, {"beta1", 2}}); }, "beta1"));
  EXPECT_TRUE(bit_equal(adam.options(), before));
}

TEST(ByName, every_schedule_is_what_its_function_makes) {
  using namespace schedule;
  struct Case {
    const char* name;
    StateDict options;
    Schedule expected;
  };
  const std::vector<Case> cases{
      {"constant", {{"factor", 0.5}, {"steps", 3}}, constant({.factor = 0.5, .steps = 3})},
      {"constant", {}, constant()},
      {"step", {{"step_size", 2}, {"gamma", 0.5}}, step({.step_size = 2, .gamma = 0.5})},
      {"multi_step", {{"milestones", StateList{1, 4.0}}}, multi_step({.milestones = {1, 4}})},
      {"exponential", {{"gamma", 0.9}}, exponential({.gamma = 0.9})},
      {"linear",
       {{"start", 0.5}, {"end", 0.25}, {"steps", 4}},
       linear({.start = 0.5, .end = 0.25, .steps = 4})},
      {"cosine", {{"steps", 6}, {"minimum", 0.01}}, cosine({.steps = 6, .minimum = 0.01})},
      {"cosine_restarts",
       {{"steps", 2}, {"multiplier", 2}, {"minimum", 0.01}},
       cosine_restarts({.steps = 2, .multiplier = 2, .minimum = 0.01})},
      {"polynomial", {{"steps", 6}, {"power", 2}}, polynomial({.steps = 6, .power = 2})},
      {"one_cycle",
       {{"maximum", 2},
        {"steps", 8},
        {"rising", 0.5},
        {"anneal", "linear"},
        {"div_factor", 5},
        {"final_div_factor", 7},
        {"three_phase", true}},
       one_cycle({.maximum = 2,
                  .steps = 8,
                  .rising = 0.5,
                  .anneal = Anneal::linear,
                  .div_factor = 5,
                  .final_div_factor = 7,
                  .three_phase = true})},
      {"one_cycle_momentum",
       {{"minimum", 0.5}, {"maximum", 0.9}, {"steps", 8}, {"rising", 0.25}},
       one_cycle_momentum({.minimum = 0.5, .maximum = 0.9, .steps = 8, .rising = 0.25})},
      {"inverse_sqrt", {{"warm_up", 3}}, inverse_sqrt({.warm_up = 3})},
  };
  for (const Case& one : cases) {
    const Schedule made = make_schedule(one.name, one.options);
    for (std::int64_t t = 0; t < 10; ++t) {
      EXPECT_EQ(made.value(0.75, t), one.expected.value(0.75, t)) << one.name << ", step " << t;
    }
  }
}

TEST(ByName, a_plateau_has_all_of_its_options) {
  using namespace schedule;
  Schedule made = make_schedule("on_plateau", {{"mode", "max"},
                                               {"factor", 0.5},
                                               {"patience", 1},
                                               {"threshold", 0.1},
                                               {"threshold_mode", "absolute"},
                                               {"cooldown", 1},
                                               {"minimum", 0.2},
                                               {"eps", 0}});
  Schedule expected = on_plateau({.mode = PlateauMode::max,
                                  .factor = 0.5,
                                  .patience = 1,
                                  .threshold = 0.1,
                                  .threshold_mode = ThresholdMode::absolute,
                                  .cooldown = 1,
                                  .minimum = 0.2,
                                  .eps = 0});
  std::int64_t step = 0;
  for (const double metric : {1.0, 1.05, 1.09, 1.0, 2.0, 2.05, 2.0, 1.0, 1.0, 1.0, 1.0}) {
    ++step;
    made.rule().observe(metric, step);
    expected.rule().observe(metric, step);
    EXPECT_EQ(made.value(1, step), expected.value(1, step)) << step;
  }
}

TEST(ByName, schedules_are_refused_like_their_functions_refuse) {
  EXPECT_TRUE(throws<NameError>([] { make_schedule("warm_up"); }, "'warm_up'", "inverse_sqrt"));
  EXPECT_TRUE(throws<OptionError>([] { make_schedule("cosine"); }, "'steps' is missing"));
  EXPECT_TRUE(throws<OptionError>([] { make_schedule("cosine", {{"steps", 0}}); }, "steps"));
  EXPECT_TRUE(throws<OptionError>(
      [] {
        make_schedule("cosine", {{"step", 3}, {"steps", 3}});
      },
      "no option 'step'", "minimum, steps"));
  EXPECT_TRUE(throws<OptionError>(
      [] {
        make_schedule("multi_step", {{"milestones", 1.5}});
      },
      "1.5"));
  EXPECT_TRUE(throws<OptionError>(
      [] {
        make_schedule("one_cycle", {{"maximum", 1}, {"steps", 5}, {"anneal", "cos"}});
      },
      "one of cosine, linear"));
}

}  // namespace by_name_test
}  // namespace lockstep::optim
