// Saves that go on while the state changes.
#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "checkpoint/slow_write.hpp"
#include "checkpoint/training.hpp"
#include "lockstep/checkpoint/background_saver.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/core/log.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/allocation_counter.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep::checkpoint {
namespace background_saver_test {

using testing::SharedFolder;
using testing::SlowWrite;
using testing::throws;
using testing::Training;
using testing::world;

class Background : public ::testing::Test {
 protected:
  StateDict on_disk() const {
    StateDict state;
    world().agree([&] { state = read_file(path_); });
    return state;
  }

  SharedFolder folder_;
  const std::filesystem::path path_ = folder_ / "file";
  Training training_{world(), optim::Adam()};
};

TEST_F(Background, saves_the_state_of_the_call) {
  BackgroundSaver saver(world());
  for (int save = 0; save < 3; ++save) {
    training_.run(1);
    const StateDict state = training_.state();
    EXPECT_TRUE(saver.save_async(path_, training_.items()));
    training_.run(1);
    saver.wait();
    EXPECT_TRUE(bit_equal(on_disk(), state));
  }
}

TEST_F(Background, writes_the_bytes_of_a_save) {
  training_.run(2);
  save(folder_ / "expected", world(), training_.items(), {.metadata = {{"note", "n"}}});
  BackgroundSaver saver(world());
  saver.save_async(path_, training_.items(), {.metadata = {{"note", "n"}}});
  saver.wait();
  EXPECT_TRUE(testing::read_bytes(path_) == testing::read_bytes(folder_ / "expected"));
}

TEST_F(Background, has_a_copy_of_what_other_ranks_have_as_well) {
  Scalars own({{"step", &training_.step}});
  training_.step = 10 + world().rank();
  BackgroundSaver saver(world());
  saver.save_async(path_, {{"own", own, ItemScope::each_rank}});
  training_.step = 0;
  saver.wait();
  load(path_, world(), {{"own", own, ItemScope::each_rank}});
  EXPECT_EQ(training_.step, 10 + world().rank());
}

TEST_F(Background, is_waited_for_by_the_next_save) {
  BackgroundSaver saver(world());
  for (int save = 0; save < 20; ++save) {
    training_.run(1);
    EXPECT_TRUE(saver.save_async(path_, training_.items()));
  }
  const StateDict state = training_.state();
  saver.wait();
  EXPECT_TRUE(bit_equal(on_disk(), state));
}

TEST_F(Background, refuses_a_save_where_that_is_chosen_until_it_is_done) {
  BackgroundSaver saver(world(), WhenBusy::refuse);
  EXPECT_TRUE(saver.save_async(path_, training_.items()));
  saver.wait();
  const StateDict before = training_.state();
  training_.run(1);
  const SlowWrite slow(path_);
  EXPECT_TRUE(saver.save_async(path_, training_.items()));
  training_.run(1);
  EXPECT_FALSE(saver.save_async(path_, training_.items()));
  EXPECT_FALSE(saver.save_async(folder_ / "other", training_.items()));
  EXPECT_TRUE(bit_equal(on_disk(), before));
  slow.end();
  EXPECT_TRUE(
      throws<CheckpointError>([&] { saver.wait(); }, "cannot sync", slow.pipe(), "(rank 0)"));
  EXPECT_TRUE(bit_equal(on_disk(), before));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "other"));
  EXPECT_TRUE(saver.save_async(path_, training_.items()));
  saver.wait();
  EXPECT_TRUE(bit_equal(on_disk(), training_.state()));
}

TEST_F(Background, throws_an_error_once_by_the_next_call_on_all_ranks) {
  BackgroundSaver saver(world());
  const auto begin = [&] { saver.save_async(folder_ / "missing/file", training_.items()); };
  begin();
  training_.run(1);
  EXPECT_TRUE(throws<CheckpointError>([&] { saver.save_async(path_, training_.items()); },
                                      "missing/file", "(rank 0)"));
  EXPECT_FALSE(std::filesystem::exists(path_));
  saver.wait();
  begin();
  EXPECT_TRUE(throws<CheckpointError>([&] { saver.wait(); }, "missing/file"));
  saver.wait();
  saver.save_async(path_, training_.items());
  saver.wait();
  EXPECT_TRUE(bit_equal(on_disk(), training_.state()));
}

TEST_F(Background, finds_at_once_what_has_nothing_to_do_with_the_file) {
  BackgroundSaver saver(world());
  std::int64_t number = world().rank();
  Scalars numbers({{"number", &number}});
  if (world().size() > 1) {
    EXPECT_TRUE(throws<StateError>(
        [&] {
          saver.save_async(path_, {{"numbers", numbers}});
        },
        "drifted apart", "numbers/number"));
  }
  EXPECT_TRUE(throws<NameError>([&] { saver.save_async(path_, {{"rank.0", numbers}}); }, "rank."));
  saver.wait();
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(Background, is_complete_when_the_saver_goes) {
  BackgroundSaver(world()).save_async(path_, training_.items());
  world().barrier();
  EXPECT_TRUE(bit_equal(on_disk(), training_.state()));
}

TEST_F(Background, warns_of_an_error_that_nobody_has_seen) {
  std::vector<std::string> warnings;
  set_log_callback([&](LogLevel, std::string_view message) { warnings.emplace_back(message); });
  BackgroundSaver(world()).save_async(folder_ / "missing/file", training_.items());
  set_log_callback({});
  EXPECT_EQ(warnings.size(), world().rank() == 0 ? 1u : 0u);
  for (const std::string& warning : warnings) EXPECT_NE(warning.find("missing/file"), warning.npos);
}

TEST_F(Background, keeps_the_memory_of_the_copy) {
  const std::size_t bytes = 8'000'000;
  nn::Sequential model{nn::Linear(1000, 2000)};
  BackgroundSaver saver(world());
  std::vector<std::size_t> taken;
  for (int save = 0; save < 3; ++save) {
    const std::size_t before = testing::allocated_bytes();
    saver.save_async(path_, {{"model", model}});
    saver.wait();
    taken.push_back(testing::allocated_bytes() - before);
  }
  if (world().rank() == 0) {
    EXPECT_GT(taken[0], bytes);
  }
  EXPECT_LT(taken[1], bytes / 4);
  EXPECT_LT(taken[2], bytes / 4);
}

// The threads of this process, and whether they block a signal of the host program.
std::map<std::string, bool> threads() {
  std::map<std::string, bool> result;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream status(task.path() / "status");
    for (std::string line; std::getline(status, line);) {
      if (!line.starts_with("SigBlk:")) continue;
      const auto blocked = std::stoull(line.substr(7), nullptr, 16);
      result[task.path().filename()] = (blocked >> (SIGUSR1 - 1) & 1) != 0;
    }
  }
  return result;
}

TEST_F(Background, leaves_signals_to_the_threads_of_the_host) {
  const auto before = threads();
  BackgroundSaver saver(world());
  const SlowWrite slow(path_);
  saver.save_async(path_, training_.items());
  int more = 0;
  for (const auto& [thread, blocks] : threads()) {
    if (before.contains(thread)) continue;
    ++more;
    EXPECT_TRUE(blocks);
  }
  EXPECT_EQ(more, world().rank() == 0 ? 1 : 0);
  slow.end();
  EXPECT_THROW(saver.wait(), CheckpointError);
}

}  // namespace background_saver_test
}  // namespace lockstep::checkpoint
