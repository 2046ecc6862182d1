#include "lockstep/optim/scheduler.hpp"

#include <cmath>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "checkpoint/training.hpp"
#include "lockstep/checkpoint/checkpoint.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "optim/small_parameters.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2);

namespace lockstep {
namespace scheduler_test {

using namespace testing;
using optim::Schedule;
namespace schedule = optim::schedule;
using Values = std::map<std::string, double>;

class SchedulerTest : public ::testing::Test {
 protected:
  // Group "body" has "a" and "b", with lr 0.5; group "head" has "c", with lr 0.25; "d" has none.
  NamedOptimizer make(const optim::UpdateRule& rule = optim::SGD({.lr = 1})) {
    return NamedOptimizer(parameters_, rule,
                          {{.params = {"a", "b"}, .lr = 0.5, .name = "body"},
                           {.params = {"c"}, .lr = 0.25, .name = "head"}});
  }

  static Values lr_of(NamedOptimizer& optimizer) {
    Values values;
    for (const std::string& name : optimizer.group_names()) {
      values[name] = optimizer.param_group(name).lr();
    }
    return values;
  }

  // That the call throws an E with these parts, and changes neither the optimizer nor the scheduler.
  template <class E, class Call, class... Parts>
  ::testing::AssertionResult refused(NamedOptimizer& optimizer, const Scheduler& scheduler,
                                     const Call& call, const Parts&... parts) {
    const StateDict state = scheduler.state_dict(), before = optimizer.state_dict().clone();
    const auto result = throws<E>(call, parts...);
    EXPECT_TRUE(bit_equal(scheduler.state_dict(), state));
    EXPECT_TRUE(bit_equal(optimizer.state_dict(), before));
    return result;
  }

  std::vector<NamedParameter> parameters_ = small_parameters();
};

const Schedule halving = schedule::exponential({.gamma = 0.5});

TEST_F(SchedulerTest, sets_every_group_from_its_own_base_value) {
  NamedOptimizer optimizer = make();
  Scheduler scheduler(optimizer, schedule::constant({.factor = 0.5, .steps = 2}));
  EXPECT_EQ(scheduler.last_step(), 0);
  EXPECT_EQ(lr_of(optimizer), (Values{{"body", 0.25}, {"head", 0.125}}));
  scheduler.step();
  EXPECT_EQ(lr_of(optimizer), (Values{{"body", 0.25}, {"head", 0.125}}));
  scheduler.step();
  EXPECT_EQ(scheduler.last_step(), 2);
  EXPECT_EQ(lr_of(optimizer), (Values{{"body", 0.5}, {"head", 0.25}}));
  EXPECT_EQ(scheduler.values(), lr_of(optimizer));
}

TEST_F(SchedulerTest, acts_on_the_groups_that_were_named) {
  NamedOptimizer optimizer = make();
  Scheduler scheduler(optimizer, halving, {.groups = {"head"}});
  scheduler.step();
  EXPECT_EQ(lr_of(optimizer), (Values{{"body", 0.5}, {"head", 0.125}}));
  EXPECT_EQ(scheduler.values(), (Values{{"head", 0.125}}));
}

TEST_F(SchedulerTest, has_a_schedule_for_each_group) {
  NamedOptimizer optimizer = make();
  Scheduler scheduler(optimizer, {{"body", halving}, {"head", schedule::linear({.start = 0})}});
  EXPECT_EQ(lr_of(optimizer), (Values{{"body", 0.5}, {"head", 0}}));
  scheduler.step();
  EXPECT_EQ(lr_of(optimizer), (Values{{"body", 0.25}, {"head", 0.05}}));
}

TEST_F(SchedulerTest, drives_any_floating_point_hyper_parameter) {
  NamedOptimizer sgd = make(optim::SGD({.lr = 1, .momentum = 0.9}));
  Scheduler momentum(sgd, schedule::one_cycle_momentum({.steps = 10}), {.field = "momentum"});
  Scheduler lr(sgd, schedule::one_cycle({.maximum = 1, .steps = 10}));
  EXPECT_EQ(sgd.param_group("head").get("momentum").as_double(), 0.95);
  for (int step = 0; step < 2; ++step) {
    momentum.step();
    lr.step();
  }
  EXPECT_EQ(momentum.values(), (Values{{"body", 0.85}, {"head", 0.85}}));
  EXPECT_EQ(lr.values(), (Values{{"body", 1}, {"head", 1}}));

  NamedOptimizer adam = make(optim::Adam());
  Scheduler beta1(adam, halving, {.field = "beta1"});
  beta1.step();
  EXPECT_EQ(adam.param_group("body").get("beta1").as_double(), 0.45);
  EXPECT_EQ(adam.param_group("body").get("beta2").as_double(), 0.999);
  EXPECT_EQ(adam.param_group("body").lr(), 0.5);
}

TEST_F(SchedulerTest, takes_over_groups_that_are_added) {
  NamedOptimizer optimizer = make();
  Scheduler all(optimizer, halving);
  all.step();
  optimizer.add_param_group({.params = "d", .lr = 8.0, .name = "late"});
  EXPECT_EQ(lr_of(optimizer), (Values{{"body", 0.25}, {"head", 0.125}, {"late", 8}}));
  EXPECT_EQ(all.values().size(), 2U);
  all.step();
  EXPECT_EQ(lr_of(optimizer), (Values{{"body", 0.125}, {"head", 0.0625}, {"late", 2}}));
  all.step();
  EXPECT_EQ(all.values(), (Values{{"body", 0.0625}, {"head", 0.03125}, {"late", 1}}));
}

TEST_F(SchedulerTest, leaves_alone_added_groups_that_were_not_named) {
  NamedOptimizer optimizer = make();
  Scheduler body(optimizer, halving, {.groups = {"body"}});
  optimizer.add_param_group({.params = "d", .lr = 8.0, .name = "late"});
  body.step();
  EXPECT_EQ(lr_of(optimizer), (Values{{"body", 0.25}, {"head", 0.25}, {"late", 8}}));
}

TEST_F(SchedulerTest, still_drives_the_optimizer_after_a_load) {
  NamedOptimizer source = make();
  source.param_group("body").set_lr(7);
  source.param_group("head").set_lr(9);
  for (const bool exactly : {false, true}) {
    NamedOptimizer optimizer = make();
    Scheduler scheduler(optimizer, halving);
    scheduler.step();
    if (exactly) {
      optimizer.restore(source.state_dict());
    } else {
      optimizer.load_state_dict(source.state_dict());
    }
    EXPECT_EQ(scheduler.values(), (Values{{"body", 7}, {"head", 9}}));
    scheduler.step();
    EXPECT_EQ(lr_of(optimizer), (Values{{"body", 0.125}, {"head", 0.0625}}));
  }
}

TEST_F(SchedulerTest, steps_of_the_optimizer_use_what_it_has_set) {
  NamedOptimizer optimizer = make();
  Scheduler scheduler(optimizer, halving);
  scheduler.step();
  const double before = parameters_[0].parameter.value().data<float>()[0];
  parameters_[0].parameter.mutable_grad().fill(1);
  optimizer.step();
  EXPECT_FLOAT_EQ(parameters_[0].parameter.value().data<float>()[0],
                  static_cast<float>(before - 0.25));
}

TEST_F(SchedulerTest, goes_on_to_the_bit_from_a_saved_state) {
  const Schedule made = schedule::warm_up(
      3, schedule::chained({schedule::cosine({.steps = 12, .minimum = 1e-3}),
                            schedule::on_plateau({.factor = 0.7, .patience = 1, .cooldown = 1})}));
  NamedOptimizer whole = make();
  Scheduler uninterrupted(whole, made);
  for (int step = 1; step <= 20; ++step) {
    NamedOptimizer again = make();
    Scheduler resumed(again, made);
    again.restore(whole.state_dict());
    const StateDict saved = uninterrupted.state_dict().clone();
    resumed.check_restore(saved);
    resumed.restore(saved);
    EXPECT_TRUE(bit_equal(resumed.state_dict(), saved));
    EXPECT_EQ(resumed.values(), uninterrupted.values());
    const double metric = step % 3 == 0 ? 1.0 / step : 1.0;
    uninterrupted.step(metric);
    resumed.step(metric);
    EXPECT_EQ(resumed.values(), uninterrupted.values());
    EXPECT_EQ(resumed.last_step(), step);
  }
  EXPECT_LT(uninterrupted.values().at("body"), 0.1);
}

TEST_F(SchedulerTest, goes_on_from_a_checkpoint_of_it_and_the_optimizer) {
  const SharedFolder folder;
  const Schedule made = schedule::warm_up(2, schedule::on_plateau({.factor = 0.5, .patience = 0}));
  for (const int steps : {1, 5}) {
    NamedOptimizer first = make(), second = make();
    Scheduler saved(first, made), loaded(second, made);
    for (int step = 0; step < steps; ++step) saved.step(1);
    checkpoint::save(folder / "checkpoint", world(), {{"optimizer", first}, {"scheduler", saved}});
    checkpoint::load(folder / "checkpoint", world(),
                     {{"optimizer", second}, {"scheduler", loaded}});
    EXPECT_TRUE(bit_equal(loaded.state_dict(), saved.state_dict()));
    saved.step(1);
    loaded.step(1);
    EXPECT_EQ(lr_of(second), lr_of(first));
  }
}

TEST_F(SchedulerTest, restores_its_values_without_the_optimizer_s) {
  NamedOptimizer source = make();
  Scheduler saved(source, halving);
  saved.step();
  saved.step();
  NamedOptimizer optimizer = make();
  optimizer.param_group("body").set_lr(100);
  Scheduler scheduler(optimizer, halving);
  scheduler.restore(saved.state_dict());
  EXPECT_EQ(lr_of(optimizer), (Values{{"body", 0.125}, {"head", 0.0625}}));
  scheduler.step();
  EXPECT_EQ(lr_of(optimizer), (Values{{"body", 0.0625}, {"head", 0.03125}}));
}

TEST_F(SchedulerTest, names_what_it_saves) {
  NamedOptimizer optimizer = make();
  Scheduler scheduler(optimizer, schedule::on_plateau(), {.groups = {"head"}});
  scheduler.step(0.75);
  const StateDict plateau{{"best", 0.75}, {"bad_steps", 0}, {"cooldown", 0}, {"reductions", 0}};
  const StateDict expected{
      {"step", 1},
      {"field", "lr"},
      {"groups", StateDict{{"head", StateDict{{"base", 0.25}, {"schedule", plateau}}}}}};
  EXPECT_TRUE(bit_equal(scheduler.state_dict(), expected));
}

TEST_F(SchedulerTest, treats_a_group_that_the_source_lacks_as_added) {
  NamedOptimizer source = make();
  Scheduler before(source, halving);
  before.step();
  const StateDict saved = before.state_dict().clone();
  NamedOptimizer optimizer = make();
  optimizer.add_param_group({.params = "d", .lr = 8.0, .name = "late"});
  Scheduler scheduler(optimizer, halving);
  scheduler.step();
  scheduler.restore(saved);
  EXPECT_TRUE(bit_equal(scheduler.state_dict(), saved));
  EXPECT_EQ(optimizer.param_group("late").lr(), 8);
  optimizer.param_group("late").set_lr(16);
  scheduler.step();
  EXPECT_EQ(lr_of(optimizer), (Values{{"body", 0.125}, {"head", 0.0625}, {"late", 4}}));
}

TEST_F(SchedulerTest, is_not_made_of_what_the_optimizer_lacks) {
  NamedOptimizer optimizer = make();
  const Values before = lr_of(optimizer);
  const auto make_scheduler = [&](const SchedulerOptions& options) {
    return [&optimizer, options] { Scheduler(optimizer, halving, options); };
  };
  EXPECT_TRUE(
      throws<NameError>(make_scheduler({.groups = {"body", "tail"}}), "'tail'", "body", "head"));
  EXPECT_TRUE(throws<NameError>(make_scheduler({.groups = {"body", "body"}}), "'body'", "twice"));
  EXPECT_TRUE(throws<NameError>(make_scheduler({.field = "beta1"}), "'beta1'", "momentum"));
  EXPECT_TRUE(throws<OptionError>(make_scheduler({.field = "nesterov"}), "'nesterov'", "'body'",
                                  "floating-point", "a bool"));
  EXPECT_TRUE(throws<NameError>([&] { Scheduler(optimizer, {{"tail", halving}}); }, "'tail'"));
  EXPECT_TRUE(throws<OptionError>([&] { Scheduler(optimizer, std::map<std::string, Schedule>()); },
                                  "at least one"));
  EXPECT_EQ(lr_of(optimizer), before);
}

TEST_F(SchedulerTest, wants_a_metric_where_a_schedule_does) {
  NamedOptimizer optimizer = make();
  Scheduler scheduler(optimizer,
                      schedule::warm_up(2, schedule::on_plateau({.factor = 0.5, .patience = 0})));
  scheduler.step();
  scheduler.step();
  EXPECT_EQ(scheduler.values().at("body"), 0.5);
  EXPECT_TRUE(refused<OptionError>(
      optimizer, scheduler, [&] { scheduler.step(); }, "'lr'", "'body'",
      "needs a metric: call step(metric)"));
  scheduler.step(1);
  scheduler.step(1);
  EXPECT_EQ(scheduler.last_step(), 4);
  EXPECT_EQ(scheduler.values(), (Values{{"body", 0.25}, {"head", 0.125}}));
}

TEST_F(SchedulerTest, changes_nothing_where_a_step_fails) {
  NamedOptimizer optimizer = make(optim::Adam());
  double factor = 1;
  const Schedule watching = schedule::on_plateau({.factor = 0.5, .patience = 1});
  const Schedule broken = schedule::function([&factor](std::int64_t) {
    if (factor < -5) throw std::runtime_error("broken");
    return factor;
  });
  Scheduler scheduler(optimizer, {{"body", watching}, {"head", broken}});
  scheduler.step(1);
  scheduler.step(1);
  const auto step = [&] { scheduler.step(1); };  // would reduce body's
  factor = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(
      refused<OptionError>(optimizer, scheduler, step, "'lr'", "'head'", "gives nan at step 3"));
  factor = -1;
  EXPECT_TRUE(
      refused<OptionError>(optimizer, scheduler, step, "'head'", "at step 3", "lr >= 0", "-0.25"));
  factor = -10;
  EXPECT_TRUE(refused<std::runtime_error>(optimizer, scheduler, step, "broken"));
  factor = 2;
  scheduler.step(1);
  EXPECT_EQ(scheduler.values(), (Values{{"body", 0.25}, {"head", 0.5}}));
  EXPECT_EQ(scheduler.last_step(), 3);
}

TEST_F(SchedulerTest, is_not_made_where_its_first_values_are_invalid) {
  NamedOptimizer optimizer = make(optim::Adam());
  const StateDict before = optimizer.state_dict().clone();
  EXPECT_TRUE(throws<OptionError>(
      [&] {
        Scheduler(optimizer,
                  {{"body", halving}, {"head", schedule::function([](std::int64_t) { return 9; })}},
                  "beta1");
      },
      "'beta1'", "'head'", "at step 0", "8.1"));
  EXPECT_TRUE(bit_equal(optimizer.state_dict(), before));
}

class SchedulerRestore : public SchedulerTest {
 protected:
  // That restore and check_restore refuse, and nothing changes.
  template <class E, class... Parts>
  ::testing::AssertionResult refuses(Scheduler& scheduler, const StateDict& source,
                                     const Parts&... parts) {
    EXPECT_TRUE(refused<E>(
        optimizer_, scheduler, [&] { scheduler.check_restore(source); }, parts...));
    return refused<E>(
        optimizer_, scheduler, [&] { scheduler.restore(source); }, parts...);
  }

  StateDict saved() {
    NamedOptimizer source = make();
    Scheduler scheduler(source, schedule::on_plateau({.patience = 0}));
    scheduler.step(1);
    scheduler.step(2);
    return scheduler.state_dict().clone();
  }

  NamedOptimizer optimizer_ = make();
  Scheduler plateau_{optimizer_, schedule::on_plateau({.patience = 0})};
};

TEST_F(SchedulerRestore, can_be_checked_without_a_change) {
  const StateDict before = optimizer_.state_dict().clone(), state = plateau_.state_dict();
  plateau_.check_restore(saved());
  EXPECT_TRUE(bit_equal(optimizer_.state_dict(), before));
  EXPECT_TRUE(bit_equal(plateau_.state_dict(), state));
}

TEST_F(SchedulerRestore, refuses_the_state_of_another_scheduler) {
  Scheduler momentum(optimizer_, halving, {.field = "momentum"});
  EXPECT_TRUE(refuses<StateError>(momentum, saved(), "a scheduler of 'lr'", "of 'momentum'"));
  Scheduler decay(optimizer_, halving);
  EXPECT_TRUE(
      refuses<StateError>(decay, saved(), "param group 'body'", "keeps none", "'bad_steps'"));
  EXPECT_TRUE(refuses<StateError>(plateau_, decay.state_dict(), "param group 'body'", "'best'"));
  Scheduler head(optimizer_, schedule::on_plateau(), {.groups = {"head"}});
  EXPECT_TRUE(refuses<StateError>(head, saved(), "param group 'body'", "it acts on 'head'"));
  Scheduler both(optimizer_, schedule::on_plateau(), {.groups = {"body", "head"}});
  EXPECT_TRUE(refuses<StateError>(both, head.state_dict(), "lacks param group 'body'"));
}

TEST_F(SchedulerRestore, refuses_what_is_missing_or_damaged) {
  StateDict source = saved();
  source["step"] = -1;
  EXPECT_TRUE(refuses<StateError>(plateau_, source, "expected step >= 0, found -1"));
  source["step"] = 1.5;
  EXPECT_TRUE(refuses<StateError>(plateau_, source, "expected an integer", "found a double"));
  EXPECT_TRUE(refuses<NameError>(plateau_, {{"field", "lr"}, {"step", 1}}, "'groups'"));
  source = saved();
  source["groups"].as_dict()["tail"] = source["groups"].as_dict()["head"];
  EXPECT_TRUE(refuses<StateError>(plateau_, source, "'tail'", "it acts on 'body', 'head'"));
  source = saved();
  source["groups"].as_dict()["head"].as_dict()["base"] = -1.0;
  EXPECT_TRUE(refuses<OptionError>(plateau_, source, "'head'", "lr >= 0", "-1"));
  source["groups"].as_dict()["head"].as_dict()["base"] = std::nan("");
  EXPECT_TRUE(refuses<OptionError>(plateau_, source, "'head'", "gives nan at step 2"));
  source["groups"].as_dict()["head"].as_dict()["base"] = "0.1";
  EXPECT_TRUE(refuses<StateError>(plateau_, source, "expected a double", "found a string"));
}

}  // namespace scheduler_test
}  // namespace lockstep
