#include "lockstep/optim/schedule.hpp"

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace schedule_test {

using nlohmann::json;
using optim::Schedule;
using testing::throws;
namespace schedule = optim::schedule;

const double nan_value = std::numeric_limits<double>::quiet_NaN();

schedule::Anneal anneal_of(const json& options) {
  return options.value("anneal", "cosine") == "linear" ? schedule::Anneal::linear
                                                       : schedule::Anneal::cosine;
}

// An option where the case has it, otherwise our own default.
template <class T>
void take(const json& options, const char* name, T& target) {
  if (options.contains(name)) target = options.at(name).get<T>();
}

Schedule make_schedule(const std::string& name, const json& options);

Schedule make_part(const json& part) { return make_schedule(part.at(0), part.at(1)); }

Schedule make_on_plateau(const json& options) {
  schedule::OnPlateauOptions made;
  if (options.value("mode", "min") == "max") made.mode = schedule::PlateauMode::max;
  if (options.value("threshold_mode", "relative") == "absolute") {
    made.threshold_mode = schedule::ThresholdMode::absolute;
  }
  take(options, "factor", made.factor);
  take(options, "patience", made.patience);
  take(options, "threshold", made.threshold);
  take(options, "cooldown", made.cooldown);
  take(options, "minimum", made.minimum);
  take(options, "eps", made.eps);
  return schedule::on_plateau(made);
}

Schedule make_one_cycle(const json& options) {
  schedule::OneCycleOptions made{.anneal = anneal_of(options)};
  take(options, "maximum", made.maximum);
  take(options, "steps", made.steps);
  take(options, "rising", made.rising);
  take(options, "div_factor", made.div_factor);
  take(options, "final_div_factor", made.final_div_factor);
  take(options, "three_phase", made.three_phase);
  return schedule::one_cycle(made);
}

Schedule make_one_cycle_momentum(const json& options) {
  schedule::OneCycleMomentumOptions made{.anneal = anneal_of(options)};
  take(options, "minimum", made.minimum);
  take(options, "maximum", made.maximum);
  take(options, "steps", made.steps);
  take(options, "rising", made.rising);
  take(options, "three_phase", made.three_phase);
  return schedule::one_cycle_momentum(made);
}

Schedule make_composed(const std::string& name, const json& options) {
  if (name == "warm_up") {
    schedule::WarmUpOptions made;
    take(options, "start", made.start);
    return schedule::warm_up(options.at("steps"), make_part(options.at("next")), made);
  }
  if (name == "chained") {
    std::vector<Schedule> parts;
    for (const json& part : options.at("parts")) parts.push_back(make_part(part));
    return schedule::chained(std::move(parts));
  }
  std::vector<schedule::Phase> phases;
  for (const json& phase : options.at("phases")) {
    phases.push_back({make_part(phase)});
    if (phase.size() == 3) phases.back().until = phase.at(2);
  }
  return schedule::sequential(std::move(phases));
}

Schedule make_simple(const std::string& name, const json& options) {
  if (name == "constant") {
    schedule::ConstantOptions made;
    take(options, "factor", made.factor);
    take(options, "steps", made.steps);
    return schedule::constant(made);
  }
  if (name == "step") {
    schedule::StepOptions made;
    take(options, "step_size", made.step_size);
    take(options, "gamma", made.gamma);
    return schedule::step(made);
  }
  if (name == "multi_step") {
    schedule::MultiStepOptions made;
    take(options, "milestones", made.milestones);
    take(options, "gamma", made.gamma);
    return schedule::multi_step(made);
  }
  if (name == "linear") {
    schedule::LinearOptions made;
    take(options, "start", made.start);
    take(options, "end", made.end);
    take(options, "steps", made.steps);
    return schedule::linear(made);
  }
  if (name == "cosine") {
    schedule::CosineOptions made;
    take(options, "steps", made.steps);
    take(options, "minimum", made.minimum);
    return schedule::cosine(made);
  }
  if (name == "cosine_restarts") {
    schedule::CosineRestartsOptions made;
    take(options, "steps", made.steps);
    take(options, "multiplier", made.multiplier);
    take(options, "minimum", made.minimum);
    return schedule::cosine_restarts(made);
  }
  if (name == "polynomial") {
    schedule::PolynomialOptions made;
    take(options, "steps", made.steps);
    take(options, "power", made.power);
    return schedule::polynomial(made);
  }
  if (name == "exponential") return schedule::exponential({.gamma = options.at("gamma")});
  if (name == "inverse_sqrt") return schedule::inverse_sqrt({.warm_up = options.at("warm_up")});
  if (name == "function") {
    return schedule::function([power = options.at("power").get<double>()](std::int64_t step) {
      return std::pow(1 + static_cast<double>(step), -power);
    });
  }
  throw NameError("no schedule " + name);
}

Schedule make_schedule(const std::string& name, const json& options) {
  if (name == "on_plateau") return make_on_plateau(options);
  if (name == "one_cycle") return make_one_cycle(options);
  if (name == "one_cycle_momentum") return make_one_cycle_momentum(options);
  if (options.contains("next") || options.contains("parts") || options.contains("phases")) {
    return make_composed(name, options);
  }
  return make_simple(name, options);
}

std::vector<double> metrics_of(const json& golden) {
  std::vector<double> metrics;
  for (const json& metric : golden.at("metrics")) {
    metrics.push_back(metric.is_null() ? nan_value : metric.get<double>());
  }
  return metrics;
}

TEST(Schedules, give_the_values_of_torch_and_numpy) {
  std::ifstream file(LOCKSTEP_GOLDEN_DIR "/schedules.json");
  const json golden = json::parse(file);
  const std::vector<double> metrics = metrics_of(golden);
  ASSERT_GE(golden.at("cases").size(), 40U);
  for (const json& test : golden.at("cases")) {
    SCOPED_TRACE(test.at("schedule").dump() + test.at("options").dump());
    for (std::size_t group = 0; group < golden.at("bases").size(); ++group) {
      const double base = golden.at("bases").at(group);
      Schedule made = make_schedule(test.at("schedule"), test.at("options"));
      const auto expected = test.at("values").at(group).get<std::vector<double>>();
      ASSERT_EQ(expected.size(), metrics.size() + 1);
      for (std::size_t i = 0; i < expected.size(); ++i) {
        const auto step = static_cast<std::int64_t>(i);
        if (i > 0) made.rule().observe(metrics[i - 1], step);
        EXPECT_NEAR(made.value(base, step), expected[i], 1e-12 * std::abs(expected[i]) + 1e-17)
            << "group " << group << ", step " << step;
      }
    }
  }
}

TEST(Schedules, depend_on_the_step_alone_unless_a_metric_drives_them) {
  const Schedule cosine = schedule::warm_up(5, schedule::cosine({.steps = 20}));
  const double later = cosine.value(0.1, 13);
  EXPECT_EQ(cosine.value(0.1, 2), 0.1 * 0.4);
  EXPECT_EQ(cosine.value(0.1, 13), later);
}

TEST(Schedules, one_cycle_keeps_its_last_value_after_its_steps) {
  for (const bool three_phase : {false, true}) {
    const Schedule cycle = schedule::one_cycle({.maximum = 0.5,
                                                .steps = 20,
                                                .div_factor = 5,
                                                .final_div_factor = 10,
                                                .three_phase = three_phase});
    EXPECT_DOUBLE_EQ(cycle.value(0, 19), 0.01);
    EXPECT_EQ(cycle.value(0, 20), cycle.value(0, 19));
    EXPECT_EQ(cycle.value(0, 1000), cycle.value(0, 19));
  }
}

TEST(Schedules, one_cycle_starts_at_the_maximum_where_it_has_one_rising_step) {
  const Schedule cycle = schedule::one_cycle({.maximum = 0.5, .steps = 10, .rising = 0.1});
  EXPECT_EQ(cycle.value(0, 0), 0.5);
  EXPECT_LT(cycle.value(0, 1), 0.5);
}

TEST(Schedules, restarts_with_growing_cycles_reach_any_step) {
  const Schedule restarts = schedule::cosine_restarts({.steps = 1, .multiplier = 1000});
  EXPECT_EQ(restarts.value(0.1, 1001), 0.1);
  EXPECT_LT(restarts.value(0.1, 1000), 1e-6);
  const double value = restarts.value(0.1, std::numeric_limits<std::int64_t>::max());
  EXPECT_TRUE(value >= 0 && value <= 0.1) << value;
}

TEST(Schedules, a_warm_up_of_no_steps_is_what_follows) {
  const Schedule next = schedule::exponential({.gamma = 0.5});
  const Schedule warm = schedule::warm_up(0, next);
  for (const std::int64_t step : {0, 1, 7}) EXPECT_EQ(warm.value(3, step), next.value(3, step));
}

TEST(Schedules, a_warm_up_ends_where_what_follows_starts) {
  const Schedule warm = schedule::warm_up(4, schedule::constant({.factor = 0.5, .steps = 3}));
  EXPECT_EQ(warm.value(8, 0), 0);
  EXPECT_EQ(warm.value(8, 3), 3);
  EXPECT_EQ(warm.value(8, 4), 4);
  EXPECT_EQ(warm.value(8, 7), 8);
}

Schedule impatient() { return schedule::on_plateau({.factor = 0.5, .patience = 0}); }

TEST(Schedules, a_metric_goes_to_the_schedule_whose_step_it_ends) {
  Schedule later = schedule::warm_up(3, impatient(), {.start = 0.5});
  Schedule phases = schedule::sequential({{impatient(), 3}, {impatient()}});
  for (std::int64_t step = 1; step <= 3; ++step) {
    EXPECT_FALSE(later.rule().needs_metric(step));
    EXPECT_EQ(phases.rule().needs_metric(step), step < 3);
    later.rule().observe(1, step);
    phases.rule().observe(1, step);
  }
  EXPECT_EQ(phases.value(8, 2), 4);
  EXPECT_EQ(phases.value(8, 3), 8);
  EXPECT_EQ(later.value(8, 3), 8);
  for (std::int64_t step = 4; step <= 6; ++step) {
    EXPECT_TRUE(later.rule().needs_metric(step));
    EXPECT_TRUE(phases.rule().needs_metric(step));
    later.rule().observe(1, step);
    phases.rule().observe(1, step);
  }
  EXPECT_EQ(later.value(8, 6), 2);
  EXPECT_EQ(phases.value(8, 6), 2);
}

TEST(Schedules, a_chain_needs_a_metric_where_one_of_it_does) {
  const Schedule chain = schedule::chained({schedule::linear(), impatient()});
  EXPECT_TRUE(chain.rule().needs_metric(1));
  EXPECT_FALSE(schedule::chained({schedule::linear()}).rule().needs_metric(1));
}

TEST(Schedules, copies_have_a_state_of_their_own) {
  Schedule first = schedule::chained({impatient()});
  const Schedule second = first;
  first.rule().observe(1, 1);
  first.rule().observe(1, 2);
  EXPECT_EQ(first.value(8, 2), 4);
  EXPECT_EQ(second.value(8, 2), 8);
}

TEST(Schedules, go_on_exactly_from_a_saved_state) {
  const auto make = [] {
    return schedule::chained(
        {schedule::linear(),
         schedule::warm_up(
             2, schedule::on_plateau({.factor = 0.5, .patience = 1, .cooldown = 2, .eps = 0}))});
  };
  const std::vector<double> metrics{1, 2, 2, 2, 2, 0.5, 2, 2, 2, 2, 2, 2};
  for (std::size_t saved = 0; saved < metrics.size(); ++saved) {
    Schedule whole = make(), resumed = make();
    for (std::size_t i = 0; i < metrics.size(); ++i) {
      const auto step = static_cast<std::int64_t>(i) + 1;
      if (i == saved) resumed.rule().restore(whole.rule().state_dict());
      whole.rule().observe(metrics[i], step);
      if (i < saved) continue;
      resumed.rule().observe(metrics[i], step);
      EXPECT_EQ(resumed.value(0.1, step), whole.value(0.1, step));
      EXPECT_TRUE(bit_equal(resumed.rule().state_dict(), whole.rule().state_dict()));
    }
    EXPECT_LT(whole.value(0.1, 100), 0.05);
  }
}

TEST(Schedules, refuse_the_state_of_another_schedule) {
  Schedule plateau = impatient(), chain = schedule::chained({schedule::linear(), impatient()});
  Schedule step = schedule::step({.step_size = 3});
  const StateDict state = plateau.rule().state_dict();
  EXPECT_TRUE(step.rule().state_dict().empty());
  EXPECT_TRUE(throws<StateError>([&] { step.rule().restore(state); }, "keeps none", "bad_steps"));
  EXPECT_TRUE(throws<NameError>([&] { plateau.rule().restore({}); }, "'best'"));
  EXPECT_TRUE(throws<NameError>([&] { chain.rule().restore({}); }, "'best'"));
  EXPECT_TRUE(throws<StateError>(
      [&] {
        chain.rule().restore({{"0", state}, {"1", state}});
      },
      "keeps none"));
  EXPECT_TRUE(throws<StateError>(
      [&] {
        chain.rule().restore({{"1", state}, {"2", state}});
      },
      "more schedules than the 2"));
  for (const std::string count : {"bad_steps", "cooldown", "reductions"}) {
    StateDict bad = state;
    bad[count] = -1;
    EXPECT_TRUE(
        throws<StateError>([&] { plateau.rule().restore(bad); }, "expected " + count + " >= 0"));
    bad[count] = 0.5;
    EXPECT_TRUE(throws<StateError>([&] { plateau.rule().check_restore(bad); }, "an integer"));
  }
  EXPECT_TRUE(bit_equal(plateau.rule().state_dict(), state));
}

}  // namespace schedule_test
}  // namespace lockstep
