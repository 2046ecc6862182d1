#include "lockstep/data/distributed_sampler.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "data/temporary_folder.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::testing {
namespace distributed_sampler_test {

using data::DistributedSampler;
using data::DistributedSamplerOptions;
using i64 = std::int64_t;
using Indices = std::vector<i64>;

std::vector<DistributedSampler> samplers(i64 size, i64 batch, int ranks,
                                         const DistributedSamplerOptions& options = {}) {
  std::vector<DistributedSampler> all;
  for (int rank = 0; rank < ranks; ++rank) all.emplace_back(size, batch, rank, ranks, options);
  return all;
}

// The next global batch: the parts of all ranks, one after another. Empty at the end of an epoch,
// which all ranks must agree on.
Indices next_batch(std::vector<DistributedSampler>& ranks) {
  Indices batch;
  std::size_t ended = 0;
  std::size_t smallest = SIZE_MAX;
  std::size_t largest = 0;
  for (DistributedSampler& sampler : ranks) {
    const auto part = sampler.next();
    if (!part) {
      ++ended;
      continue;
    }
    smallest = std::min(smallest, part->size());
    largest = std::max(largest, part->size());
    batch.insert(batch.end(), part->begin(), part->end());
  }
  EXPECT_TRUE(ended == 0 || ended == ranks.size());
  if (ended == 0) {
    EXPECT_LE(largest, smallest + 1);
  }
  return batch;
}

// All samples of the rest of the epoch, in the order of the global batches.
Indices rest_of_epoch(std::vector<DistributedSampler>& ranks) {
  Indices all;
  for (Indices batch = next_batch(ranks); !batch.empty(); batch = next_batch(ranks)) {
    all.insert(all.end(), batch.begin(), batch.end());
  }
  return all;
}

Indices identity(i64 size) {
  Indices all(static_cast<std::size_t>(size));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

struct Case {
  i64 size;
  i64 batch;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const i64 size : {1, 2, 3, 7, 12, 31, 64}) {
    for (i64 batch = 1; batch <= size; batch += 1 + batch / 4) all.push_back({size, batch});
    all.push_back({size, size});
  }
  return all;
}

TEST(DistributedSampler, gives_each_sample_once_an_epoch_in_one_order_on_any_number_of_ranks) {
  for (const auto [size, batch] : cases()) {
    auto one = samplers(size, batch, 1);
    for (i64 epoch = 0; epoch < 3; ++epoch) {
      const Indices expected = rest_of_epoch(one);
      for (int ranks = 1; ranks <= 6; ++ranks) {
        auto some = samplers(size, batch, ranks);
        for (DistributedSampler& sampler : some) sampler.set_epoch(epoch);
        ASSERT_EQ(rest_of_epoch(some), expected);
      }
      Indices sorted = expected;
      std::sort(sorted.begin(), sorted.end());
      ASSERT_EQ(sorted, identity(size));
    }
  }
}

TEST(DistributedSampler, cuts_an_epoch_into_global_batches) {
  for (const auto [size, batch] : cases()) {
    auto ranks = samplers(size, batch, 3);
    for (int epoch = 0; epoch < 2; ++epoch) {
      i64 batches = 0;
      i64 samples = 0;
      EXPECT_EQ(ranks[0].epoch(), epoch);
      while (true) {
        EXPECT_EQ(ranks[2].position(), samples);
        const Indices next = next_batch(ranks);
        if (next.empty()) break;
        const i64 expected = std::min(batch, size - samples);
        ASSERT_EQ(static_cast<i64>(next.size()), expected);
        ++batches;
        samples += expected;
      }
      EXPECT_EQ(batches, ranks[0].batches_per_epoch());
      EXPECT_EQ(samples, size);
    }
  }
}

TEST(DistributedSampler, leaves_out_a_partial_batch_with_drop_last) {
  auto ranks = samplers(11, 4, 2, {.drop_last = true});
  EXPECT_EQ(ranks[0].batches_per_epoch(), 2);
  const Indices first = rest_of_epoch(ranks);
  EXPECT_EQ(first.size(), 8U);
  auto all = samplers(11, 4, 2);
  const Indices whole = rest_of_epoch(all);
  EXPECT_EQ(first, Indices(whole.begin(), whole.begin() + 8));
  EXPECT_EQ(rest_of_epoch(ranks).size(), 8U);
  EXPECT_EQ(ranks[1].epoch(), 2);
}

TEST(DistributedSampler, may_leave_a_rank_with_an_empty_part) {
  DistributedSampler sampler(9, 8, 0, 4, {.shuffle = false});
  EXPECT_EQ(sampler.next(), (Indices{0, 1}));
  EXPECT_EQ(sampler.next(), Indices{});
  EXPECT_EQ(sampler.next(), std::nullopt);
}

TEST(DistributedSampler, gives_contiguous_parts_of_each_batch) {
  auto ranks = samplers(10, 7, 3, {.shuffle = false});
  EXPECT_EQ(ranks[0].next(), (Indices{0, 1}));
  EXPECT_EQ(ranks[1].next(), (Indices{2, 3}));
  EXPECT_EQ(ranks[2].next(), (Indices{4, 5, 6}));
  EXPECT_EQ(ranks[0].next(), (Indices{7}));
  EXPECT_EQ(ranks[1].next(), (Indices{8}));
  EXPECT_EQ(ranks[2].next(), (Indices{9}));
}

TEST(DistributedSampler, keeps_the_order_of_the_dataset_without_shuffle) {
  auto ranks = samplers(10, 3, 2, {.shuffle = false});
  EXPECT_EQ(rest_of_epoch(ranks), identity(10));
  EXPECT_EQ(rest_of_epoch(ranks), identity(10));
}

// A state file must mean the same order in every version: numbers from shuffle_order.py.
TEST(DistributedSampler, shuffles_in_an_order_that_never_changes) {
  auto one = samplers(12, 5, 1, {.seed = 7});
  EXPECT_EQ(rest_of_epoch(one), (Indices{9, 5, 4, 3, 11, 7, 1, 0, 6, 8, 2, 10}));
  one[0].set_epoch(3);
  EXPECT_EQ(rest_of_epoch(one), (Indices{10, 7, 3, 9, 6, 4, 8, 11, 0, 1, 5, 2}));
}

TEST(DistributedSampler, shuffles_anew_for_each_epoch_and_seed) {
  auto one = samplers(64, 8, 1);
  auto other = samplers(64, 8, 1, {.seed = 1});
  const Indices first = rest_of_epoch(one);
  EXPECT_NE(rest_of_epoch(one), first);
  EXPECT_NE(rest_of_epoch(other), first);
  one[0].set_epoch(0);
  EXPECT_EQ(rest_of_epoch(one), first);
}

TEST(DistributedSampler, gives_all_orders_equally_often) {
  constexpr int epochs = 24000;
  auto one = samplers(4, 4, 1);
  std::map<Indices, int> counts;
  for (int epoch = 0; epoch < epochs; ++epoch) ++counts[rest_of_epoch(one)];
  ASSERT_EQ(counts.size(), 24U);
  double chi_squared = 0;
  for (const auto& [order, count] : counts) {
    chi_squared += (count - 1000.0) * (count - 1000.0) / 1000;
  }
  // 23 degrees of freedom: 49.7 is exceeded once in a thousand.
  EXPECT_LT(chi_squared, 49.7);
}

TEST(DistributedSampler, goes_on_at_every_position_on_any_number_of_ranks) {
  for (const auto [size, batch] : {Case{1, 1}, {12, 4}, {13, 4}, {31, 10}}) {
    for (const int before : {1, 2, 3}) {
      auto uninterrupted = samplers(size, batch, before);
      for (int step = 0; step < 8; ++step) {
        const StateDict state = uninterrupted.back().state_dict();
        auto reference = uninterrupted;
        const Indices rest = rest_of_epoch(reference);
        const Indices following = rest_of_epoch(reference);
        for (const int after : {1, 2, 4}) {
          auto resumed = samplers(size, batch, after);
          // Left in the middle of another epoch, whose order must not survive.
          for (DistributedSampler& sampler : resumed) {
            sampler.set_epoch(5);
            sampler.next();
            sampler.restore(state);
            EXPECT_TRUE(bit_equal(sampler.state_dict(), state));
          }
          ASSERT_EQ(rest_of_epoch(resumed), rest);
          ASSERT_EQ(rest_of_epoch(resumed), following);
        }
        next_batch(uninterrupted);
      }
    }
  }
}

TEST(DistributedSampler, has_a_state_that_does_not_depend_on_the_rank) {
  auto ranks = samplers(10, 3, 3, {.seed = ~std::uint64_t{0}});
  next_batch(ranks);
  EXPECT_TRUE(bit_equal(ranks[0].state_dict(), ranks[2].state_dict()));
  EXPECT_EQ(ranks[0].state_dict().at("position").as_int(), 3);
  EXPECT_NO_THROW(ranks[1].check_restore(ranks[0].state_dict()));
}

TEST(DistributedSampler, refuses_a_state_that_belongs_to_other_data_and_stays_as_it_was) {
  DistributedSampler source(20, 4, 0, 1);
  source.next();
  const auto refuses = [state = source.state_dict()](DistributedSampler target,
                                                     const std::string& expected) {
    target.next();
    const StateDict before = target.state_dict();
    for (const bool check : {true, false}) {
      const std::string message = message_of<StateError>(
          [&] { check ? target.check_restore(state) : target.restore(state); });
      EXPECT_EQ(message, "the state of the data sampler has " + expected);
      EXPECT_TRUE(bit_equal(target.state_dict(), before));
    }
  };
  refuses({21, 4, 0, 1}, "dataset size 20, but this sampler has 21");
  refuses({20, 4, 0, 1, {.seed = 3}}, "seed 0, but this sampler has 3");
  refuses({20, 4, 0, 1, {.shuffle = false}}, "shuffle true, but this sampler has false");
}

TEST(DistributedSampler, goes_on_in_an_epoch_with_batches_of_another_size) {
  for (const bool drop_last : {false, true}) {
    auto source = samplers(23, 4, 2, {.drop_last = drop_last});
    next_batch(source);
    next_batch(source);
    auto target = samplers(23, 6, 3, {.drop_last = drop_last});
    for (DistributedSampler& sampler : target) sampler.restore(source[0].state_dict());
    auto whole = samplers(23, 1, 1);
    for (int i = 0; i < 8; ++i) next_batch(whole);
    Indices left = rest_of_epoch(whole);
    if (drop_last) left.resize(12);  // two of six, of 15
    EXPECT_EQ(rest_of_epoch(target), left);
    EXPECT_EQ(target[0].epoch(), 1);
    EXPECT_EQ(target[0].position(), 0);
  }
}

TEST(DistributedSampler, refuses_a_damaged_state) {
  DistributedSampler sampler(20, 6, 0, 1);
  const auto with = [&](const char* key, StateValue value) {
    StateDict state = sampler.state_dict();
    state[key] = std::move(value);
    return state;
  };
  EXPECT_THROW(sampler.check_restore(with("position", -6)), StateError);
  EXPECT_THROW(sampler.check_restore(with("position", 21)), StateError);
  EXPECT_THROW(sampler.check_restore(with("position", 24)), StateError);
  EXPECT_THROW(sampler.check_restore(with("epoch", -1)), StateError);
  EXPECT_THROW(sampler.check_restore(with("epoch", "two")), StateError);
  EXPECT_THROW(sampler.check_restore({}), NameError);
  EXPECT_NO_THROW(sampler.check_restore(with("position", 18)));
  EXPECT_NO_THROW(sampler.check_restore(with("position", 20)));
}

TEST(DistributedSampler, refuses_sizes_and_ranks_out_of_range) {
  EXPECT_EQ(message_of<OptionError>([] { DistributedSampler(100, 256, 0, 2); }),
            "batch size 128 per rank × 2 ranks = 256 exceeds the 100 samples");
  EXPECT_EQ(message_of<OptionError>([] { DistributedSampler(100, 101, 0, 2); }),
            "global batch size 101 exceeds the 100 samples");
  EXPECT_THROW(DistributedSampler(100, 0, 0, 2), OptionError);
  EXPECT_THROW(DistributedSampler(0, 1, 0, 2), OptionError);
  EXPECT_THROW(DistributedSampler(100, 10, 2, 2), OptionError);
  EXPECT_THROW(DistributedSampler(100, 10, -1, 2), OptionError);
  EXPECT_THROW(DistributedSampler(100, 10, 0, 0), OptionError);
  EXPECT_THROW(DistributedSampler(100, 10, 0, 1).set_epoch(-1), OptionError);
}

}  // namespace distributed_sampler_test
}  // namespace lockstep::testing
