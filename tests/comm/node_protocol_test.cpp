// What the ranks of a node know of one another, of two of them in this process.

#include "comm/node_protocol.hpp"

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "lockstep/testing/mpi_test.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::comm {
namespace node_protocol_test {

constexpr std::size_t capacity = 8;

struct Node {
  Node() { std::memset(memory.get(), 0, bytes); }

  static constexpr std::size_t alignment = 128;
  const std::size_t bytes = NodeProtocol::bytes(2, capacity);
  std::unique_ptr<std::byte, decltype(&std::free)> memory{
      static_cast<std::byte*>(
          std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment)),
      &std::free};
  NodeProtocol first{memory.get(), 0, 2, capacity}, second{memory.get(), 1, 2, capacity};
};

TEST(NodeProtocol, tells_when_all_have_announced_and_finished_a_call) {
  Node node;
  EXPECT_FALSE(node.first.all_announced(1));
  node.first.announce({.sequence = 1, .hash = 3, .rank = 0});
  EXPECT_FALSE(node.first.all_announced(1));
  EXPECT_EQ(node.second.not_announced(1), std::vector{1});
  node.second.announce({.sequence = 1, .hash = 4, .rank = 1});
  EXPECT_TRUE(node.first.all_announced(1));
  EXPECT_TRUE(node.second.all_announced(1));
  EXPECT_EQ(node.first.announcement(1, 1).hash, 4U);
  node.second.finish(1);
  EXPECT_FALSE(node.first.all_finished(1));
  EXPECT_EQ(node.first.not_finished(1), std::vector{0});
  node.first.finish(1);
  EXPECT_TRUE(node.first.all_finished(1));
}

// As an exchange between nodes does beside the reductions on this one.
TEST(NodeProtocol, is_asked_for_calls_in_turns) {
  Node node;
  node.first.announce({.sequence = 1});
  EXPECT_FALSE(node.first.all_announced(1));  // the second rank is missing
  node.second.announce({.sequence = 1});
  node.second.announce({.sequence = 2});
  EXPECT_FALSE(node.first.all_announced(2));  // the first
  EXPECT_TRUE(node.first.all_announced(1));
  node.first.announce({.sequence = 2});
  EXPECT_TRUE(node.first.all_announced(2));
}

TEST(NodeProtocol, names_who_has_left_before_a_call_and_keeps_the_first_failure) {
  Node node;
  node.second.finish(3);
  node.second.leave();
  EXPECT_EQ(node.first.who_left_before(3), -1);
  EXPECT_EQ(node.first.who_left_before(4), 1);
  EXPECT_FALSE(node.first.failure());
  node.second.fail({ErrorKind::state, "one"});
  node.first.fail({ErrorKind::deadline, "two"});
  ASSERT_TRUE(node.first.failure());
  EXPECT_EQ(node.first.failure()->kind, ErrorKind::state);
  EXPECT_EQ(node.first.failure()->message, "one");
}

}  // namespace node_protocol_test
}  // namespace lockstep::comm
