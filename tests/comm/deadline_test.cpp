#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>

#include "comm/placements.hpp"
#include "lockstep/comm/communicator.hpp"
#include "lockstep/comm/shared_buffer.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace deadline_test {

using namespace std::chrono_literals;
using testing::few_arrangements;
using testing::throws;
using testing::world;

bool is_last() { return world().rank() == world().size() - 1; }
std::string last_rank() { return "rank " + std::to_string(world().size() - 1); }

// A call to which the last rank comes when the others have given it up. It may have all that it needs by then, and
// completes that one.
template <class Call, class... Parts>
void expect_deadline(Call call, const Parts&... parts) {
  if (!is_last()) {
    EXPECT_TRUE(throws<DeadlineError>(call, " has waited 0.8 s for ", parts...));
  }
  world().barrier();
  if (is_last()) {
    try {
      call();
    } catch (const DeadlineError&) {
    }
  }
  EXPECT_TRUE(throws<DeadlineError>(call, " has waited 0.8 s for ", parts...)) << "once more";
}

TEST(Deadline, ends_a_call_to_which_a_rank_does_not_come) {
  if (world().size() == 1) return;
  for (const auto& [name, options, nodes] : few_arrangements(800ms)) {
    const Communicator ranks(world().handle(), options);
    ranks.barrier();
    world().barrier();
    expect_deadline([&] { ranks.barrier(); }, "call 2: barrier");
    EXPECT_TRUE(throws<DeadlineError>([&] { ranks.all_reduce(1.0); }, "call 2: barrier")) << name;
  }
}

TEST(Deadline, names_who_does_not_come) {
  if (world().size() == 1) return;
  CommunicatorOptions options{.deadline = 800ms};
  const Communicator ranks(world().handle(), options);
  ranks.barrier();
  world().barrier();
  if (world().placement().nodes.size() == 1) {
    expect_deadline([&] { ranks.broadcast_bytes(nullptr, 0, 0); },
                    last_rank() + " to make call 2: broadcast");
  } else {
    expect_deadline([&] { ranks.broadcast_bytes(nullptr, 0, 0); }, "call 2: broadcast");
  }
}

TEST(Deadline, ends_a_reduction_of_shared_memory) {
  if (world().size() == 1) return;
  for (const auto& [name, options, nodes] : few_arrangements(800ms)) {
    const Communicator ranks(world().handle(), options);
    SharedBuffer<float> buffer(ranks, 1000);
    world().barrier();
    expect_deadline([&] { buffer.all_reduce(); }, "call 1: sum of 1000 f32");
  }
}

TEST(Deadline, ends_the_making_of_a_communicator) {
  if (world().size() == 1) return;
  const Communicator parent(world().handle());
  const auto make = [&] { Communicator(parent.handle(), {.deadline = 800ms}); };
  if (!is_last()) {
    EXPECT_TRUE(throws<DeadlineError>(
        make, "this rank has waited 0.8 s for all ranks to make a duplicate of the communicator"));
  }
  world().barrier();
  // MPI has to complete it all the same before it makes another, with the help of all ranks.
  if (is_last()) Communicator(parent.handle(), {.deadline = 0ms});
  MPI_Barrier(world().handle());
}

TEST(Deadline, is_for_waiting_alone_and_zero_is_for_ever) {
  for (const std::chrono::milliseconds deadline : {0ms, 600'000ms}) {
    const Communicator ranks(world().handle(), {.deadline = deadline});
    ranks.barrier();
    if (is_last()) std::this_thread::sleep_for(600ms);
    EXPECT_NO_THROW(ranks.barrier());
  }
  // What a rank does beside its calls takes as long as it takes.
  const Communicator hurried(world().handle(), {.deadline = 1000ms});
  hurried.barrier();
  std::this_thread::sleep_for(1200ms);
  world().barrier();
  EXPECT_NO_THROW(hurried.barrier());
}

TEST(Deadline, belongs_to_duplicates_as_well) {
  const Communicator ranks(world().handle(), {.deadline = 1234ms});
  EXPECT_EQ(ranks.duplicate().options().deadline, 1234ms);
}

TEST(Deadline, is_read_from_the_environment_where_nothing_else_is_said) {
  const auto with = [](const char* text) {
    setenv("LOCKSTEP_DEADLINE", text, 1);
    return default_deadline();
  };
  EXPECT_EQ(with("0.25"), 250ms);
  EXPECT_EQ(with("90"), 90s);
  EXPECT_EQ(with("0"), 0s);
  EXPECT_EQ(with("1e-9"), 1ms);  // not for ever
  EXPECT_EQ(CommunicatorOptions().deadline, 1ms);
  EXPECT_EQ(with(""), 10min);
  for (const char* text : {"-1", "nan", "inf", "1e99", "10s", "ten", " 5"}) {
    EXPECT_TRUE(throws<OptionError>([&] { with(text); }, "LOCKSTEP_DEADLINE", "seconds")) << text;
  }
  unsetenv("LOCKSTEP_DEADLINE");
  EXPECT_EQ(default_deadline(), 10min);
}

}  // namespace deadline_test
}  // namespace lockstep
