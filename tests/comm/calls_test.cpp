#include <cstdint>
#include <fstream>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "comm/placements.hpp"
#include "lockstep/comm/communicator.hpp"
#include "lockstep/comm/shared_buffer.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace calls_test {

using testing::arrangements;
using testing::throws;
using testing::world;

/// A collective call, and what an error says of it.
struct NamedCall {
  std::string text;
  std::function<void(const Communicator&)> make;
};

template <class T>
NamedCall reduce(std::size_t count, ReduceOp op, const std::string& text) {
  return {text, [count, op](const Communicator& ranks) {
            std::vector<T> values(count);
            ranks.all_reduce(std::span<T>(values), op);
          }};
}

template <class T>
NamedCall broadcast(std::size_t count, int root, const std::string& text) {
  return {text, [count, root](const Communicator& ranks) {
            std::vector<T> values(count);
            ranks.broadcast(std::span<T>(values), root);
          }};
}

template <class T>
NamedCall gather(std::size_t count, int root, const std::string& text) {
  return {text, [count, root](const Communicator& ranks) {
            const std::vector<T> values(count);
            ranks.gather(std::span<const T>(values), root);
          }};
}

// No two of them are the same call.
std::vector<NamedCall> calls() {
  std::vector<NamedCall> all{
      reduce<float>(3, ReduceOp::sum, "sum of 3 f32"),
      reduce<float>(100000, ReduceOp::sum, "sum of 100000 f32"),
      reduce<double>(100000, ReduceOp::max, "maximum of 100000 f64"),
      broadcast<float>(3, 0, "broadcast of 3 f32 from rank 0"),
      broadcast<float>(3, 1, "broadcast of 3 f32 from rank 1"),
      broadcast<std::uint8_t>(12, 0, "broadcast of 12 u8 from rank 0"),
      broadcast<float>(100000, 0, "broadcast of 100000 f32 from rank 0"),
      broadcast<float>(100001, 0, "broadcast of 100001 f32 from rank 0"),
      gather<double>(1, 0, "gather of 1 f64 to rank 0"),
      gather<std::int64_t>(1, 0, "gather of 1 i64 to rank 0"),
      gather<double>(1, 1, "gather of 1 f64 to rank 1"),
  };
  std::string text = "of any length";
  all.push_back({"broadcast of a text from rank 0",
                 [text](const Communicator& ranks) mutable { ranks.broadcast(text, 0); }});
  all.push_back(
      {"gather of a text to rank 0", [text](const Communicator& ranks) { ranks.gather(text, 0); }});
  all.push_back({"barrier", [](const Communicator& ranks) { ranks.barrier(); }});
  all.push_back({"agreement", [](const Communicator& ranks) { ranks.agree([] {}); }});
  all.push_back({"duplicate", [](const Communicator& ranks) { ranks.duplicate(); }});
  all.push_back({"duplicate", [](const Communicator& ranks) { SharedBuffer<float>(ranks, 5); }});
  return all;
}

TEST(Calls, that_differ_are_an_error_on_all_ranks_that_names_two_sides) {
  if (world().size() == 1) return;  // one rank agrees with itself
  const std::vector<NamedCall> all = calls();
  const auto where = arrangements();
  std::size_t number = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    for (std::size_t j = i + 1; j < all.size(); ++j) {
      if (all[i].text == all[j].text) continue;
      // Another rank is the odd one each time, on other nodes, now with the one call and now with the other.
      const int odd = static_cast<int>(++number % static_cast<std::size_t>(world().size()));
      const auto& arrangement = where[number % where.size()];
      const NamedCall &of_odd = all[number % 2 == 0 ? i : j], &other = all[number % 2 == 0 ? j : i];
      const Communicator ranks(world().handle(), arrangement.options);
      ranks.all_reduce(1.0);
      const NamedCall& own = world().rank() == odd ? of_odd : other;
      ASSERT_TRUE(throws<StateError>([&] { own.make(ranks); },
                                     "the ranks do not make the same call", of_odd.text, other.text,
                                     "rank " + std::to_string(odd)))
          << arrangement.name << ": " << other.text << ", and on rank " << odd << ' '
          << of_odd.text;
      // And never again.
      ASSERT_TRUE(throws<StateError>([&] { other.make(ranks); }, "do not make the same call"));
    }
  }
}

TEST(Calls, that_agree_come_through_in_any_mixture) {
  const std::vector<NamedCall> all = calls();
  for (const auto& arrangement : arrangements()) {
    if (world().size() == 1) continue;  // there is no rank 1
    Communicator ranks(world().handle(), arrangement.options);
    for (int round = 0; round < 3; ++round) {
      for (const NamedCall& call : all) call.make(ranks);
    }
    std::string text = ranks.rank() == 1 ? std::string(200000, 'x') : "";
    ranks.broadcast(text, 1);
    EXPECT_EQ(text, std::string(200000, 'x'));
    ranks.close();
  }
}

// Memory that lockstep has mapped, which has no name any more but in this list.
std::int64_t shared_memories() {
  std::ifstream maps("/proc/self/maps");
  std::int64_t count = 0;
  for (std::string line; std::getline(maps, line);) {
    if (line.find("/lockstep-") != std::string::npos) ++count;
  }
  return count;
}

TEST(Calls, give_their_memory_back_with_the_communicator) {
  const std::int64_t before = shared_memories();
  {
    const Communicator ranks(world().handle());
    ranks.barrier();
    EXPECT_EQ(shared_memories(), before + (world().size() > 1 ? 1 : 0));
  }
  EXPECT_EQ(shared_memories(), before);
}

}  // namespace calls_test
}  // namespace lockstep
