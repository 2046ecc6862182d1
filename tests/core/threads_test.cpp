#include "lockstep/core/threads.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <csignal>
#include <cstdint>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "core/parallel_for.hpp"
#include "data/temporary_folder.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace threads_test {

using Range = std::pair<std::int64_t, std::int64_t>;

class Threads : public ::testing::Test {
 protected:
  ~Threads() override { set_threads(1); }

  // Those that a parallel_for() has called, in order.
  static std::vector<Range> ranges(std::int64_t n) {
    std::vector<Range> all;
    std::mutex mutex;
    parallel_for(n, [&](std::int64_t begin, std::int64_t end) {
      const std::lock_guard lock(mutex);
      all.emplace_back(begin, end);
    });
    std::sort(all.begin(), all.end());
    return all;
  }
};

TEST_F(Threads, are_one_where_nobody_wants_more) {
  EXPECT_EQ(threads(), 1);
  EXPECT_EQ(ranges(10), (std::vector<Range>{{0, 10}}));
}

TEST_F(Threads, have_a_range_each) {
  set_threads(3);
  EXPECT_EQ(threads(), 3);
  for (int round = 0; round < 1000; ++round) {
    ASSERT_EQ(ranges(10), (std::vector<Range>{{0, 3}, {3, 6}, {6, 10}}));
  }
  EXPECT_EQ(ranges(2), (std::vector<Range>{{0, 1}, {1, 2}}));
  EXPECT_EQ(ranges(1), (std::vector<Range>{{0, 1}}));
  EXPECT_EQ(ranges(0), std::vector<Range>{});
  set_threads(5);
  EXPECT_EQ(ranges(5).size(), 5U);
  set_threads(2);
  EXPECT_EQ(ranges(5), (std::vector<Range>{{0, 2}, {2, 5}}));
}

TEST_F(Threads, are_different_ones_and_the_first_is_the_callers) {
  set_threads(4);
  std::vector<std::thread::id> ids(4);
  parallel_for(4, [&](std::int64_t begin, std::int64_t) {
    ids[static_cast<std::size_t>(begin)] = std::this_thread::get_id();
  });
  EXPECT_EQ(ids[0], std::this_thread::get_id());
  EXPECT_EQ(std::set<std::thread::id>(ids.begin(), ids.end()).size(), 4U);
}

TEST_F(Threads, do_not_share_what_one_of_them_calls) {
  set_threads(3);
  std::atomic<int> calls = 0;
  parallel_for(3, [&](std::int64_t, std::int64_t) {
    parallel_for(7, [&](std::int64_t begin, std::int64_t end) {
      EXPECT_EQ((Range{begin, end}), (Range{0, 7}));
      ++calls;
    });
  });
  EXPECT_EQ(calls, 3);
}

TEST_F(Threads, serve_several_threads_of_the_host_at_a_time) {
  set_threads(2);
  std::atomic<std::int64_t> sum = 0;
  std::vector<std::thread> hosts;
  for (int host = 0; host < 4; ++host) {
    hosts.emplace_back([&sum] {
      for (int round = 0; round < 500; ++round) {
        parallel_for(10, [&](std::int64_t begin, std::int64_t end) { sum += end - begin; });
      }
    });
  }
  for (std::thread& host : hosts) host.join();
  EXPECT_EQ(sum, 4 * 500 * 10);
}

TEST_F(Threads, hand_on_what_is_thrown) {
  set_threads(3);
  for (const std::int64_t thrower : {0, 1, 2}) {
    std::atomic<int> calls = 0;
    EXPECT_THROW(parallel_for(3,
                              [&](std::int64_t begin, std::int64_t) {
                                ++calls;
                                if (begin == thrower) throw std::runtime_error("no");
                              }),
                 std::runtime_error);
    EXPECT_EQ(calls, 3);
    EXPECT_EQ(ranges(3).size(), 3U);
  }
}

TEST_F(Threads, have_the_mode_of_the_caller_and_take_no_signals) {
  set_threads(2);
  for (const int mode : {FE_UPWARD, FE_TONEAREST}) {
    std::fesetround(mode);
    parallel_for(2, [mode](std::int64_t begin, std::int64_t) {
      EXPECT_EQ(std::fegetround(), mode);
      if (begin == 0) return;
      sigset_t blocked;
      pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
      EXPECT_EQ(sigismember(&blocked, SIGTERM), 1);
      EXPECT_EQ(sigismember(&blocked, SIGUSR1), 1);
    });
  }
  sigset_t blocked;
  pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
  EXPECT_EQ(sigismember(&blocked, SIGTERM), 0);
}

TEST_F(Threads, are_not_there_in_the_child_of_a_fork) {
  set_threads(3);
  EXPECT_EQ(ranges(3).size(), 3U);
  const pid_t child = fork();
  if (child == 0) _exit(ranges(3) == std::vector<Range>{{0, 3}} ? 0 : 1);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_EQ(ranges(3).size(), 3U);
}

TEST_F(Threads, of_a_number_out_of_range_are_refused) {
  for (const int count : {0, -1, 1025}) {
    const std::string message = testing::message_of<OptionError>([count] { set_threads(count); });
    EXPECT_EQ(message,
              "set_threads: expected a number from 1 to 1024, found " + std::to_string(count));
  }
  EXPECT_EQ(threads(), 1);
}

}  // namespace threads_test
}  // namespace lockstep
