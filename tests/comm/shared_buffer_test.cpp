#include "lockstep/comm/shared_buffer.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "comm/placements.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/tensor/random.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace shared_buffer_test {

using testing::Arrangement;
using testing::arrangements;
using testing::throws;
using testing::world;

template <class T>
inline constexpr bool is_half = std::is_same_v<T, float16> || std::is_same_v<T, bfloat16>;
template <class T>
using Sum = std::conditional_t<is_half<T>, float, T>;

// What a rank contributes in a round.
template <class T>
T drawn(int rank, std::uint64_t round, std::size_t i) {
  const std::uint64_t mixed =
      (i + 1) * 2654435761U + static_cast<unsigned>(rank) * 977U + round * 31U;
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(mixed % 50);
  } else {
    return static_cast<T>(static_cast<float>(mixed % 4093) / 97.0F - 21.0F);
  }
}

template <class A>
A combined(A a, A b, ReduceOp op) {
  switch (op) {
    case ReduceOp::sum:
    case ReduceOp::mean:
      return static_cast<A>(a + b);
    case ReduceOp::max:
      return std::max(a, b);
    case ReduceOp::min:
      return std::min(a, b);
  }
  return a;
}

// Number i of the result, by the documented order: ranks of a node, then nodes.
template <class T>
T expected(const Arrangement& arrangement, std::uint64_t round, std::size_t i, ReduceOp op) {
  std::vector<Sum<T>> sums;
  for (const std::vector<int>& node : arrangement.nodes) {
    auto sum = static_cast<Sum<T>>(drawn<T>(node[0], round, i));
    for (std::size_t r = 1; r < node.size(); ++r) {
      sum = combined(sum, static_cast<Sum<T>>(drawn<T>(node[r], round, i)), op);
    }
    sums.push_back(sum);
  }
  Sum<T> result = sums[0];
  for (std::size_t n = 1; n < sums.size(); ++n) result = combined(result, sums[n], op);
  if (op == ReduceOp::mean)
    result = static_cast<Sum<T>>(result / static_cast<Sum<T>>(world().size()));
  return static_cast<T>(result);
}

template <class T>
void expect_result(std::span<const T> found, const Arrangement& arrangement, std::uint64_t round,
                   ReduceOp op) {
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const T value = expected<T>(arrangement, round, i, op);
    wrong += std::memcmp(&value, &found[i], sizeof(T)) != 0;
  }
  EXPECT_EQ(wrong, 0U) << arrangement.name << ", " << found.size() << " numbers, operation "
                       << static_cast<int>(op);
}

template <class T>
void fill(std::span<T> values, std::uint64_t round) {
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = drawn<T>(world().rank(), round, i);
}

template <class T>
std::vector<ReduceOp> operations() {
  if (std::is_integral_v<T>) return {ReduceOp::sum, ReduceOp::max, ReduceOp::min};
  return {ReduceOp::sum, ReduceOp::mean, ReduceOp::max, ReduceOp::min};
}

// Of one type all that may matter, since it takes time to set them up.
template <class T>
std::vector<std::size_t> sizes() {
  if (std::is_same_v<T, float>) return {0, 1, 17, 5001, 70003};
  if (is_half<T>) return {17, 40003};
  return {17, 8000};
}

template <class T>
class SharedBufferTest : public ::testing::Test {};
using Types = ::testing::Types<float, double, std::int64_t, std::uint8_t, float16, bfloat16>;
TYPED_TEST_SUITE(SharedBufferTest, Types);

TYPED_TEST(SharedBufferTest, combines_the_values_of_all_ranks_in_the_documented_order) {
  std::uint64_t round = 0;
  for (const Arrangement& arrangement : arrangements()) {
    const Communicator ranks(world().handle(), arrangement.options);
    // The longest ones are cut into several messages.
    for (const std::size_t size : sizes<TypeParam>()) {
      SharedBuffer<TypeParam> buffer(ranks, size);
      EXPECT_EQ(buffer.size(), size);
      for (const ReduceOp op : operations<TypeParam>()) {
        if (size > 10000 && op != ReduceOp::sum) continue;
        fill(buffer.values(), ++round);
        buffer.all_reduce(op);
        expect_result(buffer.result(), arrangement, round, op);
      }
    }
  }
}

TYPED_TEST(SharedBufferTest, gives_the_communicators_all_reduce_the_same_bits_of_short_spans) {
  std::uint64_t round = 1000;
  for (const Arrangement& arrangement : arrangements()) {
    const Communicator ranks(world().handle(), arrangement.options);
    for (const std::size_t size : sizes<TypeParam>()) {
      // Longer ones are MPI's, in an order of its own.
      const bool short_span = is_half<TypeParam> || size * sizeof(TypeParam) <= 65536;
      if (!short_span && !std::is_integral_v<TypeParam>) continue;
      for (const ReduceOp op : operations<TypeParam>()) {
        if (size > 10000 && op != ReduceOp::sum) continue;
        std::vector<TypeParam> values(size);
        fill(std::span<TypeParam>(values), ++round);
        ranks.all_reduce(std::span<TypeParam>(values), op);
        expect_result(std::span<const TypeParam>(values), arrangement, round, op);
      }
    }
  }
}

TEST(SharedBuffer, reduces_random_sizes_many_times_over) {
  for (const Arrangement& arrangement : arrangements()) {
    const Communicator ranks(world().handle(), arrangement.options);
    for (std::uint64_t round = 0; round < 4; ++round) {
      const std::size_t size = 1 + RandomKey(7).below(20000, round);
      SharedBuffer<float> buffer(ranks, size);
      for (std::uint64_t step = 0; step < 3; ++step) {
        fill(buffer.values(), 100 * round + step);
        buffer.all_reduce();
        expect_result(buffer.result(), arrangement, 100 * round + step, ReduceOp::sum);
      }
    }
  }
}

TEST(SharedBuffer, several_are_under_way_at_a_time) {
  for (const Arrangement& arrangement : arrangements()) {
    const Communicator ranks(world().handle(), arrangement.options);
    std::vector<SharedBuffer<double>> buffers;
    for (std::size_t i = 0; i < 5; ++i) buffers.emplace_back(ranks, 1000 * (5 - i) + 1);
    for (std::uint64_t step = 0; step < 3; ++step) {
      for (std::uint64_t i = 0; i < 5; ++i) {
        fill(buffers[i].values(), 10 * step + i);
        buffers[i].start();
      }
      for (std::uint64_t i = 5; i-- > 0;) {
        while (!buffers[i].test()) {
        }
        expect_result(buffers[i].result(), arrangement, 10 * step + i, ReduceOp::sum);
      }
    }
  }
}

TEST(SharedBuffer, the_result_stays_while_other_ranks_go_on) {
  for (const Arrangement& arrangement : arrangements()) {
    const Communicator ranks(world().handle(), arrangement.options);
    SharedBuffer<float> buffer(ranks, 3000);
    for (std::uint64_t step = 0; step < 200; ++step) {
      fill(buffer.values(), step);
      buffer.all_reduce();
      // A rank that is late to read finds it as it was, though others have begun the next step.
      if (step % 50 == static_cast<std::uint64_t>(world().rank())) {
        expect_result(buffer.result(), arrangement, step, ReduceOp::sum);
      }
    }
  }
}

TEST(SharedBuffer, shares_memory_where_that_is_wanted) {
  for (const Arrangement& arrangement : arrangements()) {
    const Communicator ranks(world().handle(), arrangement.options);
    EXPECT_EQ(SharedBuffer<float>(ranks, 10).shared(), arrangement.options.share_memory);
    EXPECT_EQ(ranks.placement().nodes, arrangement.nodes) << arrangement.name;
    const std::vector<int>& neighbours = ranks.placement().neighbours();
    EXPECT_EQ(neighbours[static_cast<std::size_t>(ranks.placement().node_rank)], ranks.rank());
    EXPECT_EQ(ranks.duplicate().placement().nodes, arrangement.nodes);
  }
}

TEST(SharedBuffer, works_on_parts_of_the_ranks) {
  MPI_Comm split = MPI_COMM_NULL;
  MPI_Comm_split(world().handle(), world().rank() % 2, -world().rank(), &split);
  const Communicator part(split);
  MPI_Comm_free(&split);
  SharedBuffer<std::int64_t> buffer(part, 100);
  for (std::int64_t& value : buffer.values()) value = world().rank();
  buffer.all_reduce();
  std::int64_t sum = 0;
  for (int rank = world().rank() % 2; rank < world().size(); rank += 2) sum += rank;
  EXPECT_EQ(buffer.result()[99], sum);
}

TEST(SharedBuffer, refuses_what_is_started_twice_or_not_at_all) {
  SharedBuffer<float> buffer(world(), 10);
  EXPECT_TRUE(throws<StateError>([&] { buffer.test(); }, "no all-reduce", "has been started"));
  EXPECT_TRUE(throws<StateError>([&] { buffer.wait(); }, "no all-reduce"));
  buffer.start();
  EXPECT_TRUE(throws<StateError>([&] { buffer.start(); }, "is under way"));
  buffer.wait();
  buffer.all_reduce();
}

TEST(SharedBuffer, refuses_the_mean_of_integers) {
  SharedBuffer<std::int64_t> buffer(world(), 10);
  EXPECT_TRUE(throws<OptionError>([&] { buffer.all_reduce(ReduceOp::mean); }, "no mean of i64"));
  EXPECT_TRUE(throws<OptionError>([&] { buffer.all_reduce(static_cast<ReduceOp>(9)); },
                                  "unknown reduce operation 9"));
  buffer.all_reduce();
}

TEST(SharedBuffer, ranks_that_do_not_reduce_the_same_get_an_error_that_names_both) {
  if (world().size() == 1) return;  // one rank agrees with itself
  const int last = world().size() - 1;
  const bool differs = world().rank() == last;
  const std::string who = "rank " + std::to_string(last);
  for (const Arrangement& arrangement : arrangements()) {
    const Communicator ranks(world().handle(), arrangement.options);
    {
      SharedBuffer<float> buffer(ranks, 1000);
      fill(buffer.values(), 1);
      // Rank 1 has sent what it has to, and comes back to this call when others have failed in the
      // next: it is complete all the same, as all agree on it.
      if (world().rank() <= 1) buffer.start();
      world().barrier();
      const bool complete = world().rank() == 1 && buffer.test();
      world().barrier();
      if (world().rank() > 1) buffer.start();
      if (world().rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(50));
      if (!complete) buffer.wait();
      const auto reduce = [&] { buffer.all_reduce(differs ? ReduceOp::max : ReduceOp::sum); };
      EXPECT_TRUE(throws<StateError>(reduce, "the ranks do not make the same call", "sum of",
                                     "maximum of", "rank "))
          << arrangement.name;
      // And never again.
      EXPECT_TRUE(throws<StateError>([&] { buffer.all_reduce(); }, "do not make the same call"))
          << arrangement.name;
    }
    std::vector<float> values(differs ? 100 : 101);
    const auto reduce = [&] { ranks.all_reduce(std::span<float>(values)); };
    EXPECT_TRUE(throws<StateError>(reduce, "do not make the same call")) << arrangement.name;
    if (arrangement.nodes.size() == 1 && arrangement.options.share_memory) {
      EXPECT_TRUE(throws<StateError>(reduce, "rank 0 makes call 3", who + " makes call 3"));
    }
  }
}

TEST(SharedBuffer, differences_beyond_what_is_copied_are_found_as_well) {
  if (world().size() == 1) return;
  const bool differs = world().rank() == 0;
  const Communicator length(world().handle());
  std::vector<float> values(differs ? 100000 : 100001);
  EXPECT_TRUE(throws<StateError>([&] { length.all_reduce(std::span<float>(values)); },
                                 "do not make the same call"));
  const Communicator way(world().handle());
  std::vector<float> some(differs ? 10 : 100000);
  EXPECT_TRUE(throws<StateError>([&] { way.all_reduce(std::span<float>(some)); },
                                 "do not make the same call"));
}

TEST(SharedBuffer, whoever_waits_for_a_rank_that_has_gone_is_told) {
  // Memory that is shared tells it, and where there is none it takes the deadline.
  if (world().placement().nodes.front().size() == 1) return;
  auto buffer = std::make_unique<SharedBuffer<float>>(world(), 1000);
  buffer->all_reduce();
  if (world().rank() == 0) {
    buffer.reset();
  } else {
    EXPECT_TRUE(throws<StateError>([&] { buffer->all_reduce(); }, "rank 0", "has gone"));
  }
  world().barrier();
}

TEST(SharedBuffer, may_be_dropped_in_any_order_and_moved) {
  for (const Arrangement& arrangement : arrangements()) {
    const Communicator ranks(world().handle(), arrangement.options);
    std::vector<std::unique_ptr<SharedBuffer<float>>> buffers;
    for (int i = 0; i < 4; ++i) buffers.push_back(std::make_unique<SharedBuffer<float>>(ranks, 50));
    for (const auto& buffer : buffers) buffer->all_reduce();
    std::rotate(buffers.begin(), buffers.begin() + world().rank() % 4, buffers.end());
    SharedBuffer<float> moved = std::move(*buffers.back());
    while (!buffers.empty()) buffers.pop_back();
    world().barrier();
    moved.values()[0] = 1;
  }
}

}  // namespace shared_buffer_test
}  // namespace lockstep
