// A manager whose saves go on in the background.
#include <csignal>
#include <optional>
#include <string>

#include "checkpoint/managed_folder.hpp"
#include "checkpoint/slow_write.hpp"
#include "lockstep/core/error.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace managed_background_test {

using checkpoint::WhenBusy;
using testing::SlowWrite;
using testing::throws;
using testing::world;

class InBackground : public testing::ManagedFolder {
 protected:
  bool step(CheckpointManager& manager, std::int64_t step,
            std::optional<double> metric = std::nullopt) {
    number_ = static_cast<double>(step);
    const bool saved = manager.step(step, metric);
    number_ = -1;
    return saved;
  }
};

TEST_F(InBackground, saves_what_was_there_when_it_was_due) {
  CheckpointManager manager(path(), world(), items(), {.every_steps = 2, .background = true});
  for (int i = 1; i <= 5; ++i) EXPECT_EQ(step(manager, i), i % 2 == 0);
  manager.wait();
  EXPECT_EQ(files(), files_of({2, 4}));
  EXPECT_EQ(manager.load_latest(), 4);
  EXPECT_EQ(number_, 4);
}

TEST_F(InBackground, deletes_only_when_the_newer_is_on_disk) {
  CheckpointManager manager(path(), world(), items(),
                            {.every_steps = 1, .keep_last = 1, .keep_best = 1, .background = true});
  step(manager, 1, 0.1);
  step(manager, 2, 0.5);
  const SlowWrite slow(path(file(3)));
  step(manager, 3, 0.4);
  world().barrier();
  EXPECT_EQ(files(), (std::vector<std::string>{file(1), file(2), file(3) + ".tmp"}));
  slow.end();
  EXPECT_TRUE(throws<CheckpointError>([&] { manager.wait(); }, slow.pipe()));
  EXPECT_EQ(files(), files_of({1, 2}));
  step(manager, 4, 0.4);
  manager.wait();
  EXPECT_EQ(files(), files_of({1, 4}));
  EXPECT_EQ(manager.newest(), 4);
}

TEST_F(InBackground, leaves_out_a_save_while_one_goes_on_where_that_is_chosen) {
  CheckpointManager manager(path(), world(), items(),
                            {.every_steps = 2, .background = true, .when_busy = WhenBusy::refuse});
  const SlowWrite slow(path(file(2)));
  EXPECT_FALSE(step(manager, 1));
  EXPECT_TRUE(step(manager, 2));
  for (int i = 3; i <= 5; ++i) EXPECT_FALSE(step(manager, i));
  slow.end();
  EXPECT_TRUE(throws<CheckpointError>([&] { manager.wait(); }, slow.pipe()));
  EXPECT_TRUE(step(manager, 6));
  manager.wait();
  EXPECT_EQ(files(), files_of({6}));
}

TEST_F(InBackground, tells_of_an_error_at_the_next_save_and_saves_again) {
  CheckpointManager manager(path(), world(), items(), {.every_steps = 1, .background = true});
  step(manager, 1);
  change([&] { std::filesystem::create_directory(path(file(2))); });
  EXPECT_TRUE(step(manager, 2));
  EXPECT_TRUE(throws<CheckpointError>([&] { step(manager, 3); }, file(2)));
  EXPECT_EQ(manager.newest(), 1);
  EXPECT_TRUE(step(manager, 4));
  manager.wait();
  EXPECT_EQ(manager.newest(), 4);
  change([&] { std::filesystem::remove(path(file(2))); });
  EXPECT_EQ(files(), files_of({1, 4}));
}

TEST_F(InBackground, is_on_disk_when_a_signal_stops_the_run) {
  CheckpointManager manager(path(), world(), items(),
                            {.every_steps = 100, .signals = {SIGUSR1}, .background = true});
  step(manager, 1);
  if (world().rank() == world().size() - 1) std::raise(SIGUSR1);
  EXPECT_TRUE(step(manager, 2));
  EXPECT_TRUE(manager.stop_requested());
  EXPECT_EQ(files(), files_of({2}));
}

TEST_F(InBackground, is_complete_when_the_manager_goes) {
  {
    CheckpointManager manager(path(), world(), items(), {.every_steps = 1, .background = true});
    for (int i = 1; i <= 3; ++i) step(manager, i);
  }
  world().barrier();
  CheckpointManager manager(path(), world(), items());
  EXPECT_EQ(manager.load_latest(), 3);
  EXPECT_EQ(number_, 3);
}

TEST_F(InBackground, saves_at_once_on_request) {
  CheckpointManager manager(path(), world(), items(), {.every_steps = 1, .background = true});
  step(manager, 1);
  save(manager, 2);
  EXPECT_EQ(files(), files_of({1, 2}));
}

}  // namespace managed_background_test
}  // namespace lockstep
