// When a manager saves, what it keeps, and how a run goes on.
#include "lockstep/checkpoint/checkpoint_manager.hpp"

#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <limits>

#include "checkpoint/managed_folder.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace checkpoint_manager_test {

using testing::momentum_sgd;
using testing::throws;
using testing::Training;
using testing::world;

class Manager : public testing::ManagedFolder {
 protected:
  /// The steps of 1 to `last` after which a manager saves.
  std::vector<std::int64_t> saved_of(CheckpointManager& manager, std::int64_t last) {
    std::vector<std::int64_t> saved;
    for (std::int64_t step = 1; step <= last; ++step) {
      if (manager.step(step)) saved.push_back(step);
    }
    return saved;
  }
};

using Steps = std::vector<std::int64_t>;

TEST_F(Manager, saves_every_so_many_steps) {
  CheckpointManager manager(path(), world(), items(), {.every_steps = 3});
  EXPECT_EQ(saved_of(manager, 10), (Steps{3, 6, 9}));
  EXPECT_EQ(files(), files_of({3, 6, 9}));
}

TEST_F(Manager, saves_at_the_step_after_a_multiple_that_was_no_step) {
  CheckpointManager manager(path(), world(), items(), {.every_steps = 100});
  Steps saved;
  for (const std::int64_t step : {60, 120, 180, 240, 300, 360, 720, 780}) {
    if (manager.step(step)) saved.push_back(step);
  }
  EXPECT_EQ(saved, (Steps{120, 240, 300, 720}));
}

TEST_F(Manager, counts_steps_from_zero_whatever_was_saved_between) {
  CheckpointManager manager(path(), world(), items(), {.every_steps = 10});
  EXPECT_FALSE(manager.step(7));
  manager.save(8);
  EXPECT_FALSE(manager.step(9));
  EXPECT_TRUE(manager.step(10));
  manager.save(20);
  EXPECT_FALSE(manager.step(20));
  EXPECT_FALSE(manager.step(29));
}

TEST_F(Manager, saves_every_so_many_minutes_by_the_clock_of_rank_0) {
  std::chrono::steady_clock::time_point now;
  CheckpointManager manager(path(), world(), items(),
                            {.every_minutes = 2.5, .clock = [&now] { return now; }});
  // The other clocks are late, or run ahead.
  const auto wait = [&now](int seconds) {
    now += std::chrono::seconds(seconds * (world().rank() == 0 ? 1 : 100 * (world().rank() - 1)));
  };
  EXPECT_FALSE(manager.step(1));
  wait(149);
  EXPECT_FALSE(manager.step(2));
  wait(1);
  EXPECT_TRUE(manager.step(3));
  EXPECT_FALSE(manager.step(4));
  wait(100);
  manager.save(5);  // from here it counts again
  wait(100);
  EXPECT_FALSE(manager.step(6));
  wait(1000);
  EXPECT_TRUE(manager.step(7));
  EXPECT_EQ(files(), files_of({3, 5, 7}));
}

TEST_F(Manager, looks_at_the_time_only_as_often_as_asked) {
  std::chrono::steady_clock::time_point now;
  CheckpointManager manager(path(), world(), items(),
                            {.every_minutes = 1, .poll_every = 4, .clock = [&now] {
                               return now += std::chrono::minutes(2);
                             }});
  EXPECT_EQ(saved_of(manager, 13), (Steps{4, 8, 12}));
}

TEST_F(Manager, sends_no_message_where_only_the_number_of_steps_decides) {
  CheckpointManager manager(path(), world(), items(), {.every_steps = 1000});
  for (std::int64_t step = 1; step <= 100 * world().rank(); ++step) manager.step(step);
  world().barrier();  // an error if one rank had made a call that others have not
}

TEST_F(Manager, keeps_the_newest) {
  CheckpointManager manager(path(), world(), items(), {.keep_last = 2});
  for (std::int64_t step = 1; step <= 5; ++step) {
    save(manager, step);
    EXPECT_EQ(files(), step == 1 ? files_of({1}) : files_of({step - 1, step}));
  }
}

TEST_F(Manager, keeps_those_with_the_best_metric_beside_them) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  const auto kept = [&](BestMetric best) {
    change([&] { std::filesystem::remove_all(path()); });
    CheckpointManager manager(path(), world(), items(),
                              {.keep_last = 1, .keep_best = 2, .best = best});
    const std::vector<std::optional<double>> metrics{3, 1, nan, 2, 2, std::nullopt, 4, infinity, 3};
    for (std::size_t i = 0; i < metrics.size(); ++i) {
      save(manager, static_cast<std::int64_t>(i), metrics[i]);
    }
    return files();
  };
  EXPECT_EQ(kept(BestMetric::lowest), files_of({1, 4, 8}));
  EXPECT_EQ(kept(BestMetric::highest), files_of({6, 7, 8}));
}

TEST_F(Manager, remembers_the_best_after_a_resume) {
  const CheckpointManagerOptions options{.keep_last = 1, .keep_best = 1};
  {
    CheckpointManager manager(path(), world(), items(), options);
    save(manager, 1, 0.5);
    save(manager, 2, 0.25);
    save(manager, 3, 0.75);
    EXPECT_EQ(files(), files_of({2, 3}));
  }
  CheckpointManager manager(path(), world(), items(), options);
  EXPECT_EQ(manager.load_latest(), 3);
  save(manager, 4, 0.3);
  EXPECT_EQ(files(), files_of({2, 4}));
  save(manager, 5, 0.2);
  save(manager, 6);
  EXPECT_EQ(files(), files_of({5, 6}));
}

TEST_F(Manager, loads_the_best_for_a_look_at_it) {
  {
    CheckpointManager manager(path(), world(), items(), {.keep_best = 1});
    EXPECT_EQ(manager.load_best(), std::nullopt);
    save(manager, 1);
    EXPECT_EQ(manager.load_best(), std::nullopt);
    save(manager, 2, 0.25);
    save(manager, 3, 0.5);
  }
  CheckpointManager manager(path(), world(), items(), {.keep_best = 1});
  EXPECT_EQ(manager.load_best(), 2);
  EXPECT_EQ(number_, 2);
  EXPECT_TRUE(
      throws<StateError>([&] { manager.save(4); }, "checkpoint of step 3", "load_latest()"));
  EXPECT_EQ(manager.load_latest(), 3);
  EXPECT_EQ(number_, 3);
  manager.save(4);
}

TEST_F(Manager, finds_nothing_in_a_new_folder) {
  number_ = 5;
  CheckpointManager manager(path(), world(), items());
  EXPECT_EQ(manager.newest(), std::nullopt);
  EXPECT_EQ(manager.load_latest(), std::nullopt);
  EXPECT_EQ(number_, 5);
  save(manager, 0);
  EXPECT_EQ(manager.newest(), 0);
  EXPECT_EQ(manager.load_latest(), 0);
}

TEST_F(Manager, finds_the_newest_by_its_number) {
  save_all({9, 10, 999'999'999, 1'000'000'000});
  CheckpointManager manager(path(), world(), items());
  EXPECT_EQ(manager.newest(), 1'000'000'000);
  EXPECT_EQ(manager.load_latest(), 1'000'000'000);
  EXPECT_EQ(number_, 1e9);
  EXPECT_EQ(manager.path(12), path(file(12)));
}

TEST_F(Manager, goes_on_with_a_run_to_the_same_bits) {
  Training uninterrupted(world(), momentum_sgd(), 1);
  uninterrupted.run(9);
  const CheckpointManagerOptions options{.every_steps = 2, .keep_last = 1};
  const auto train = [&](Training& training, std::int64_t last) {
    CheckpointManager manager(path(), world(), training.items(), options);
    const std::int64_t loaded = manager.load_latest().value_or(0);
    EXPECT_EQ(loaded, training.step);
    while (training.step < last) {
      training.run(1);
      manager.step(training.step);
    }
    return loaded;
  };
  Training first(world(), momentum_sgd(), 1), second(world(), momentum_sgd(), 2),
      third(world(), momentum_sgd(), 3);
  EXPECT_EQ(train(first, 5), 0);
  EXPECT_EQ(train(second, 7), 4);
  EXPECT_EQ(train(third, 9), 6);
  EXPECT_TRUE(bit_equal(third.state(), uninterrupted.state()));
}

TEST_F(Manager, replaces_a_checkpoint_of_the_same_step) {
  CheckpointManager manager(path(), world(), items(), {.keep_last = 1, .keep_best = 1});
  save(manager, 1, 0.5);
  save(manager, 1, 0.25);
  save(manager, 2, 0.3);
  EXPECT_EQ(files(), files_of({1, 2}));
  EXPECT_EQ(manager.load_best(), 1);
}

TEST_F(Manager, writes_the_same_bytes_in_each_run_of_one_time) {
  std::string first;
  for (const bool again : {false, true}) {
    change([&] { std::filesystem::remove_all(path()); });
    CheckpointManager manager(path(), world(), items());
    save(manager, 3, 0.5);
    const std::string bytes = testing::read_bytes(path(file(3)));
    if (again) {
      EXPECT_EQ(bytes, first);
    }
    first = bytes;
    world().barrier();
  }
}

TEST_F(Manager, refuses_steps_that_go_back) {
  CheckpointManager manager(path(), world(), items());
  manager.step(4);
  EXPECT_TRUE(throws<StateError>([&] { manager.step(3); }, "step 3 cannot follow step 4"));
  save(manager, 5);
  EXPECT_TRUE(throws<StateError>([&] { manager.save(4); }, "step 5", "step 4", "another folder"));
  EXPECT_TRUE(throws<StateError>([&] { manager.step(4); }, "step 5", "step 4", "another folder"));
  EXPECT_TRUE(throws<OptionError>([&] { manager.save(-1); }, "step >= 0", "-1"));
  EXPECT_EQ(files(), files_of({5}));
}

TEST_F(Manager, refuses_to_mix_a_run_with_one_that_it_has_not_loaded) {
  save_all({5});
  CheckpointManager manager(path(), world(), items());
  EXPECT_TRUE(throws<StateError>([&] { manager.step(1); }, "step 5", "load_latest()"));
  EXPECT_TRUE(throws<StateError>([&] { manager.save(6); }, "step 5", "load_latest()"));
  manager.load_latest();
  save(manager, 6);
  EXPECT_EQ(files(), files_of({5, 6}));
}

TEST_F(Manager, saves_nothing_of_replicas_that_have_drifted_apart) {
  if (world().size() == 1) return;
  CheckpointManager manager(path(), world(), items(), {.keep_last = 1});
  save(manager, 1);
  number_ = world().rank();
  EXPECT_TRUE(throws<StateError>([&] { manager.save(2); }, "drifted apart", "state/number"));
  number_ = 2;
  EXPECT_TRUE(throws<StateError>([&] { manager.save(2, world().rank()); }, "drifted apart",
                                 "metadata/metric"));
  EXPECT_EQ(files(), files_of({1}));
  EXPECT_EQ(manager.load_latest(), 1);
}

TEST_F(Manager, keeps_what_there_was_when_the_disk_is_full) {
  CheckpointManager manager(path(), world(), items(), {.every_steps = 1, .keep_last = 1});
  save(manager, 1);
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  if (world().rank() == 0) {
    const rlimit small{.rlim_cur = 100, .rlim_max = limit.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  }
  number_ = 2;
  EXPECT_TRUE(throws<CheckpointError>([&] { manager.step(2); }, "cannot write", "File too large"));
  setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(files(), files_of({1}));
  EXPECT_EQ(manager.load_latest(), 1);
  EXPECT_EQ(number_, 1);
  EXPECT_TRUE(manager.step(2));
  EXPECT_EQ(files(), files_of({2}));
}

TEST_F(Manager, refuses_options_that_make_no_sense) {
  const auto refuses = [&](const CheckpointManagerOptions& options, const char* what) {
    return throws<OptionError>([&] { CheckpointManager(path(), world(), items(), options); }, what);
  };
  EXPECT_TRUE(refuses({.every_steps = -1}, "every_steps >= 0, found -1"));
  EXPECT_TRUE(refuses({.every_minutes = -0.5}, "every_minutes >= 0, found -0.5"));
  EXPECT_TRUE(refuses({.every_minutes = NAN}, "every_minutes >= 0, found nan"));
  EXPECT_TRUE(refuses({.every_minutes = INFINITY}, "every_minutes >= 0, found inf"));
  EXPECT_TRUE(refuses({.keep_last = 0}, "keep_last >= 1, found 0"));
  EXPECT_TRUE(refuses({.keep_best = -1}, "keep_best >= 0, found -1"));
  EXPECT_TRUE(refuses({.poll_every = 0}, "poll_every >= 1, found 0"));
  EXPECT_TRUE(refuses({.clock = nullptr}, "no clock"));
  for (const int signal : {-1, 0, SIGKILL, SIGSTOP, 1000}) {
    EXPECT_TRUE(refuses({.signals = {SIGUSR1, signal}}, "signal"));
  }
  EXPECT_FALSE(std::filesystem::exists(path()));
}

TEST_F(Manager, refuses_two_items_of_one_name) {
  for (const char* name : {"state", "metadata"}) {
    EXPECT_TRUE(throws<NameError>(
        [&] {
          CheckpointManager(path(), world(), {{"state", state_}, {name, state_}});
        },
        name));
  }
}

TEST_F(Manager, refuses_options_that_differ_between_ranks) {
  if (world().size() == 1) return;
  const int rank = world().rank();
  const auto refuses = [&](const CheckpointManagerOptions& options, const char* what) {
    return throws<OptionError>([&] { CheckpointManager(path(), world(), items(), options); },
                               "other options", what);
  };
  EXPECT_TRUE(refuses({.every_steps = rank}, "every_steps"));
  EXPECT_TRUE(refuses({.every_minutes = rank / 3.0}, "every_minutes"));
  EXPECT_TRUE(refuses({.keep_last = rank + 1}, "keep_last"));
  EXPECT_TRUE(refuses({.keep_best = rank}, "keep_best"));
  EXPECT_TRUE(refuses({.best = rank ? BestMetric::lowest : BestMetric::highest}, "best"));
  EXPECT_TRUE(refuses({.signals = std::vector<int>(rank ? 1 : 0, SIGUSR1)}, "signals"));
  EXPECT_TRUE(refuses({.poll_every = rank + 1}, "poll_every"));
  EXPECT_TRUE(refuses({.lock = rank == 0}, "lock"));
  EXPECT_TRUE(throws<OptionError>(
      [&] { CheckpointManager(path(std::to_string(rank)), world(), items()); }, "folder"));
}

}  // namespace checkpoint_manager_test
}  // namespace lockstep
