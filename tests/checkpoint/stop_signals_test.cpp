// Managers that save and stop when a signal comes.
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "checkpoint/managed_folder.hpp"
#include "testing/log.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace stop_signals_test {

using testing::world;

int calls = 0;
int last_code = 0;
struct sigaction under_test = {};

void count(int) { ++calls; }
void count_with_information(int, siginfo_t* information, void*) {
  ++calls;
  last_code = information->si_code;
}
/// As a handler does that was set over another.
void pass_on(int signal, siginfo_t* information, void* context) {
  ++calls;
  under_test.sa_sigaction(signal, information, context);
}

struct sigaction action_of(int signal) {
  struct sigaction action = {};
  sigaction(signal, nullptr, &action);
  return action;
}

bool equal(const struct sigaction& a, const struct sigaction& b) {
  if ((a.sa_flags & SA_SIGINFO) != (b.sa_flags & SA_SIGINFO)) return false;
  return (a.sa_flags & SA_SIGINFO) != 0 ? a.sa_sigaction == b.sa_sigaction
                                        : a.sa_handler == b.sa_handler;
}

class Signals : public testing::ManagedFolder {
 protected:
  Signals() { calls = 0; }
  ~Signals() override { sigaction(SIGUSR1, &before_, nullptr); }

  CheckpointManagerOptions options() const { return {.signals = {SIGTERM, SIGUSR1}}; }

  const struct sigaction before_ = action_of(SIGUSR1);
};

TEST_F(Signals, on_one_rank_save_once_and_stop_all_ranks_after_the_same_step) {
  for (int rank = 0; rank < world().size(); ++rank) {
    for (const int signal : {SIGTERM, SIGUSR1}) {
      change([&] { std::filesystem::remove_all(path()); });
      const testing::Log log;
      CheckpointManager manager(path(), world(), items(), options());
      std::int64_t step = 0;
      while (step < 100 && !manager.stop_requested()) {
        if (step == 4 && world().rank() == rank) raise(signal);
        number_ = static_cast<double>(++step);
        EXPECT_EQ(manager.step(step, 0.5), step == 5);
      }
      EXPECT_EQ(step, 5);
      EXPECT_EQ(files(), files_of({5}));
      EXPECT_EQ(log.lines().size(), world().rank() == 0 ? 1u : 0u);
      for (const std::string& line : log.lines()) {
        EXPECT_NE(line.find("info: saved step 5"), std::string::npos) << line;
        EXPECT_NE(line.find("signal " + std::to_string(signal)), std::string::npos) << line;
      }
      if (world().rank() == rank) raise(signal);
      EXPECT_FALSE(manager.step(6));
      EXPECT_EQ(manager.load_latest(), 5);
      EXPECT_EQ(number_, 5);
    }
  }
}

TEST_F(Signals, come_to_the_next_agreement) {
  CheckpointManagerOptions rarely = options();
  rarely.poll_every = 10;
  CheckpointManager manager(path(), world(), items(), rarely);
  if (world().rank() == world().size() - 1) raise(SIGUSR1);
  std::int64_t step = 0;
  while (!manager.stop_requested()) manager.step(++step);
  EXPECT_EQ(step, 10);
}

TEST_F(Signals, at_a_step_that_saves_anyway_save_once) {
  CheckpointManagerOptions often = options();
  often.every_steps = 1;
  CheckpointManager manager(path(), world(), items(), often);
  EXPECT_TRUE(manager.step(1));
  EXPECT_FALSE(manager.stop_requested());
  raise(SIGTERM);
  EXPECT_TRUE(manager.step(2));
  EXPECT_TRUE(manager.stop_requested());
  EXPECT_TRUE(manager.step(3));
}

TEST_F(Signals, that_came_before_a_manager_are_not_its_own) {
  {
    CheckpointManager manager(path(), world(), items(), options());
    raise(SIGUSR1);
  }
  CheckpointManager manager(path(), world(), items(), options());
  EXPECT_FALSE(manager.step(1));
  EXPECT_FALSE(manager.stop_requested());
}

TEST_F(Signals, stop_although_the_save_fails) {
  CheckpointManager manager(path(), world(), items(), options());
  change([&] { std::filesystem::remove_all(path()); });
  raise(SIGTERM);
  EXPECT_TRUE(testing::throws<CheckpointError>([&] { manager.step(1); }, "removed"));
  EXPECT_TRUE(manager.stop_requested());
}

TEST_F(Signals, are_left_alone_unless_asked_for) {
  struct sigaction counting = {};
  counting.sa_handler = count;
  sigaction(SIGUSR1, &counting, nullptr);
  const struct sigaction terminate = action_of(SIGTERM);
  CheckpointManager manager(path(), world(), items());
  EXPECT_TRUE(equal(action_of(SIGUSR1), counting));
  EXPECT_TRUE(equal(action_of(SIGTERM), terminate));
  raise(SIGUSR1);
  EXPECT_EQ(calls, 1);
  EXPECT_FALSE(manager.step(1));
}

TEST_F(Signals, go_to_the_handlers_of_before_as_well_which_come_back) {
  struct sigaction plain = {}, informed = {}, ignored = {};
  plain.sa_handler = count;
  informed.sa_sigaction = count_with_information;
  informed.sa_flags = SA_SIGINFO;
  ignored.sa_handler = SIG_IGN;
  for (const auto& [action, expected] : {std::pair(plain, 1), {informed, 1}, {ignored, 0}}) {
    sigaction(SIGUSR1, &action, nullptr);
    calls = last_code = 0;
    {
      CheckpointManager manager(path(), world(), items(), options());
      EXPECT_FALSE(equal(action_of(SIGUSR1), action));
      raise(SIGUSR1);
      EXPECT_EQ(calls, expected);
      EXPECT_EQ(last_code, (action.sa_flags & SA_SIGINFO) != 0 ? SI_TKILL : 0);
      manager.step(1);
      EXPECT_TRUE(manager.stop_requested());
    }
    EXPECT_TRUE(equal(action_of(SIGUSR1), action));
    raise(SIGUSR1);
    EXPECT_EQ(calls, 2 * expected);
    change([&] { std::filesystem::remove_all(path()); });
  }
}

TEST_F(Signals, are_watched_as_long_as_a_manager_does) {
  std::optional<CheckpointManager> first, second;
  first.emplace(path("first"), world(), items(), options());
  second.emplace(path("second"), world(), items(), options());
  first.reset();
  EXPECT_FALSE(equal(action_of(SIGUSR1), before_));
  raise(SIGUSR1);
  EXPECT_TRUE(second->step(1));
  EXPECT_TRUE(second->stop_requested());
  second.reset();
  EXPECT_TRUE(equal(action_of(SIGUSR1), before_));
}

TEST_F(Signals, keep_a_handler_that_was_set_over_the_managers) {
  struct sigaction over = {}, plain = {};
  over.sa_sigaction = pass_on;
  over.sa_flags = SA_SIGINFO;
  plain.sa_handler = count;
  sigaction(SIGUSR1, &plain, nullptr);
  {
    CheckpointManager manager(path(), world(), items(), options());
    sigaction(SIGUSR1, &over, &under_test);
    raise(SIGUSR1);
    EXPECT_EQ(calls, 2);
    EXPECT_TRUE(manager.step(1));
  }
  EXPECT_TRUE(equal(action_of(SIGUSR1), over));
  raise(SIGUSR1);
  EXPECT_EQ(calls, 4);
  {
    // Its handler calls the one above, which calls it again.
    CheckpointManager manager(path("other"), world(), items(), options());
    raise(SIGUSR1);
    EXPECT_EQ(calls, 5);
    EXPECT_TRUE(manager.step(1));
  }
  EXPECT_TRUE(equal(action_of(SIGUSR1), over));
  sigaction(SIGUSR1, &under_test, nullptr);  // as it was when `over` was set
}

TEST_F(Signals, do_what_they_did_before_once_no_manager_is_left) {
  struct sigaction standard = {}, over = {};
  standard.sa_handler = SIG_DFL;
  over.sa_handler = count;
  sigaction(SIGUSR1, &standard, nullptr);
  {
    CheckpointManager manager(path(), world(), items(), options());
    sigaction(SIGUSR1, &over, &under_test);
  }
  sigaction(SIGUSR1, &under_test, nullptr);  // the manager's handler, kept alive
  const pid_t child = fork();
  if (child == 0) {
    raise(SIGUSR1);
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR1) << status;
}

}  // namespace stop_signals_test
}  // namespace lockstep
