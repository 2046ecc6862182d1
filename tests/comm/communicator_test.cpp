#include "lockstep/comm/communicator.hpp"

#include <algorithm>
#include <cfenv>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace communicator_test {

using testing::world;

template <class T>
class Collectives : public ::testing::Test {};
using AllTypes = ::testing::Types<float, double, std::int64_t, std::uint8_t>;
TYPED_TEST_SUITE(Collectives, AllTypes);

// Differs by rank and by index, and no result of one operation equals that of another.
template <class T>
T value(int rank, int index) {
  return static_cast<T>(3 * rank + (index % 5) * (index % 2 == 0 ? 1 : 2) + 1);
}

template <class T>
std::vector<T> values(int rank, int count) {
  std::vector<T> all;
  for (int i = 0; i < count; ++i) all.push_back(value<T>(rank, i));
  return all;
}

TYPED_TEST(Collectives, all_reduce_combines_element_by_element) {
  for (const int count : {1, 7, 10000}) {
    std::vector<TypeParam> sum = values<TypeParam>(world().rank(), count);
    std::vector<TypeParam> max = sum;
    std::vector<TypeParam> min = sum;
    world().all_reduce(std::span<TypeParam>(sum));
    world().all_reduce(std::span<TypeParam>(max), ReduceOp::max);
    world().all_reduce(std::span<TypeParam>(min), ReduceOp::min);
    std::vector<TypeParam> expected(sum.size(), TypeParam{0});
    for (int rank = 0; rank < world().size(); ++rank) {
      for (std::size_t i = 0; i < expected.size(); ++i) {
        expected[i] =
            static_cast<TypeParam>(expected[i] + value<TypeParam>(rank, static_cast<int>(i)));
      }
    }
    EXPECT_EQ(sum, expected);
    EXPECT_EQ(max, values<TypeParam>(world().size() - 1, count));
    EXPECT_EQ(min, values<TypeParam>(0, count));
  }
}

TEST(Communicator, all_reduce_computes_with_nothing_but_the_values) {
  // Signaling NaN, so that to add what an earlier call has left would raise an exception.
  std::vector<std::int64_t> before(8, 0x7ff0000000000001);
  world().all_reduce(std::span<std::int64_t>(before), ReduceOp::max);
  std::feclearexcept(FE_ALL_EXCEPT);
  EXPECT_EQ(world().all_reduce(2.0), 2.0 * world().size());
  EXPECT_EQ(std::fetestexcept(FE_INVALID), 0);
}

TYPED_TEST(Collectives, all_reduce_of_one_value_returns_it) {
  const auto mine = static_cast<TypeParam>(world().rank() + 1);
  const int size = world().size();
  EXPECT_EQ(world().all_reduce(mine), static_cast<TypeParam>(size * (size + 1) / 2));
  EXPECT_EQ(world().all_reduce(mine, ReduceOp::max), static_cast<TypeParam>(size));
  EXPECT_EQ(world().all_reduce(mine, ReduceOp::min), TypeParam{1});
}

TYPED_TEST(Collectives, broadcast_copies_from_each_root) {
  for (int root = 0; root < world().size(); ++root) {
    std::vector<TypeParam> received = values<TypeParam>(world().rank(), 1001);
    world().broadcast(std::span<TypeParam>(received), root);
    EXPECT_EQ(received, values<TypeParam>(root, 1001));
  }
}

TYPED_TEST(Collectives, gather_is_in_rank_order_on_root_alone) {
  const std::vector<TypeParam> mine = values<TypeParam>(world().rank(), 3);
  for (int root = 0; root < world().size(); ++root) {
    std::vector<TypeParam> expected;
    if (world().rank() == root) {
      for (int rank = 0; rank < world().size(); ++rank) {
        const std::vector<TypeParam> theirs = values<TypeParam>(rank, 3);
        expected.insert(expected.end(), theirs.begin(), theirs.end());
      }
    }
    EXPECT_EQ(world().gather(std::span<const TypeParam>(mine), root), expected);
  }
}

TYPED_TEST(Collectives, empty_spans_pass) {
  std::vector<TypeParam> none;
  world().all_reduce(std::span<TypeParam>(none));
  world().broadcast(std::span<TypeParam>(none), world().size() - 1);
  EXPECT_TRUE(world().gather(std::span<const TypeParam>(none)).empty());
}

TEST(Communicator, all_reduce_gives_the_same_bits_on_all_ranks) {
  std::vector<double> sums(4099);
  for (std::size_t i = 0; i < sums.size(); ++i) {
    sums[i] = 1.0 / (static_cast<double>(i) + 3.0 + 0.7 * world().rank());
  }
  world().all_reduce(std::span<double>(sums));
  std::vector<double> first = sums;
  world().broadcast(std::span<double>(first));
  EXPECT_EQ(sums, first);
}

TEST(Communicator, all_reduce_keeps_integers_that_a_double_cannot_hold) {
  const std::int64_t large = (std::int64_t{1} << 53) + 1;
  EXPECT_EQ(world().all_reduce(world().rank() == 0 ? large : 0), large);
}

TEST(Communicator, a_mean_is_over_all_ranks_for_any_length) {
  for (const std::size_t size : {std::size_t{1}, std::size_t{20000}}) {
    std::vector<double> values(size, world().rank() + 1.0);
    world().all_reduce(std::span<double>(values), ReduceOp::mean);
    EXPECT_DOUBLE_EQ(values.front(), (world().size() + 1) / 2.0);
    EXPECT_DOUBLE_EQ(values.back(), (world().size() + 1) / 2.0);
  }
}

TEST(Communicator, broadcast_replaces_a_string_by_one_of_another_length) {
  for (int root = 0; root < world().size(); ++root) {
    const std::string zeros("a\0b", 3);
    for (const std::string& sent :
         {std::string(), std::string("x"), zeros, std::string(70000, 'q')}) {
      std::string text = world().rank() == root ? sent : "what was here before";
      world().broadcast(text, root);
      EXPECT_EQ(text, sent);
    }
  }
}

TEST(Communicator, gather_takes_strings_of_unequal_length) {
  const auto text_of = [](int rank) {
    return rank == 1 ? std::string() : std::string(static_cast<std::size_t>(rank) * 50000 + 1, 'a');
  };
  for (int root = 0; root < world().size(); ++root) {
    std::vector<std::string> expected;
    for (int rank = 0; rank < world().size() && world().rank() == root; ++rank) {
      expected.push_back(text_of(rank));
    }
    EXPECT_EQ(world().gather(text_of(world().rank()), root), expected);
  }
}

TEST(Communicator, refuses_a_root_that_is_no_rank) {
  double value = 1;
  EXPECT_THROW(world().broadcast(std::span<double>(&value, 1), world().size()), OptionError);
  EXPECT_THROW(world().gather(std::string(), -1), OptionError);
}

TEST(Communicator, refuses_the_null_communicator) {
  EXPECT_THROW(Communicator{MPI_COMM_NULL}, OptionError);
}

TEST(Communicator, duplicates_do_not_share_messages) {
  Communicator other = world().duplicate();
  int relation = MPI_UNEQUAL;
  MPI_Comm_compare(world().handle(), other.handle(), &relation);
  EXPECT_EQ(relation, MPI_CONGRUENT);
  other.close();
  EXPECT_EQ(world().all_reduce(1.0), world().size());
}

TEST(Communicator, duplicates_keep_the_options) {
  const Communicator original(world().handle(),
                              {.share_memory = false, .node = world().rank() / 2});
  Communicator copy = original.duplicate();
  EXPECT_FALSE(copy.options().share_memory);
  EXPECT_EQ(copy.options().node, world().rank() / 2);
  EXPECT_EQ(copy.placement().nodes, original.placement().nodes);
  EXPECT_EQ(copy.placement().neighbours(), original.placement().neighbours());
  const int first = world().rank() / 2 * 2;
  const std::vector<int>& machine = world().placement().neighbours();
  const bool together = std::find(machine.begin(), machine.end(), first) != machine.end();
  EXPECT_EQ(copy.placement().neighbours()[0], together ? first : world().rank());
  EXPECT_TRUE(world().options().share_memory);
  EXPECT_EQ(world().options().node, std::nullopt);
  copy.close();
  EXPECT_THROW(world().duplicate().all_reduce(1.0F, static_cast<ReduceOp>(7)), OptionError);
}

TEST(Communicator, copies_are_closed_together) {
  Communicator communicator = world().duplicate();
  const Communicator copy = communicator;
  EXPECT_EQ(copy.handle(), communicator.handle());
  communicator.close();
  EXPECT_EQ(copy.handle(), MPI_COMM_NULL);
  communicator.close();
}

TEST(Communicator, refuses_any_use_after_close) {
  Communicator closed = world().duplicate();
  closed.close();
  double value = 1;
  const std::span<double> span(&value, 1);
  std::string text;
  EXPECT_THROW(closed.duplicate(), StateError);
  EXPECT_THROW(closed.placement(), StateError);
  EXPECT_THROW(closed.all_reduce(span), StateError);
  EXPECT_THROW(closed.broadcast(span), StateError);
  EXPECT_THROW(closed.broadcast(text), StateError);
  EXPECT_THROW(closed.gather(std::span<const double>(span)), StateError);
  EXPECT_THROW(closed.gather(text), StateError);
  EXPECT_THROW(closed.barrier(), StateError);
  bool ran = false;
  EXPECT_THROW(closed.agree([&] { ran = true; }), StateError);
  EXPECT_FALSE(ran);
}

TEST(Communicator, dropped_without_close_does_not_wait_whatever_the_order) {
  std::vector<Communicator> kept;
  for (int i = 0; i < 40; ++i) {
    const Communicator communicator = world().duplicate();
    // Rank 0 keeps all until the end, and the others drop theirs at once.
    if (world().rank() == 0) kept.push_back(communicator);
  }
  EXPECT_EQ(world().all_reduce(1.0), world().size());
  while (!kept.empty()) kept.pop_back();
}

TEST(Communicator, speaks_to_the_ranks_of_a_part) {
  const int colour = world().rank() % 2;
  MPI_Comm half = MPI_COMM_NULL;
  // In reverse order of ranks.
  MPI_Comm_split(world().handle(), colour, -world().rank(), &half);
  Communicator part(half);
  MPI_Comm_free(&half);
  int members = 0;
  double expected = 0;
  for (int rank = colour; rank < world().size(); rank += 2) {
    ++members;
    expected += rank;
  }
  EXPECT_EQ(part.size(), members);
  EXPECT_EQ(part.rank(), members - 1 - world().rank() / 2);
  EXPECT_EQ(part.all_reduce(static_cast<double>(world().rank())), expected);
  part.close();
}

}  // namespace communicator_test
}  // namespace lockstep
