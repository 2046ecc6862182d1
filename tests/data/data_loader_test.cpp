#include "lockstep/data/data_loader.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <iterator>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::testing {
namespace data_loader_test {

using data::Batch;
using data::DataLoader;
using data::DistributedSampler;
using i64 = std::int64_t;

static_assert(std::input_iterator<DataLoader::Iterator>);
static_assert(std::sentinel_for<std::default_sentinel_t, DataLoader::Iterator>);

// Sample i has the target i.
class DataLoaderTest : public ::testing::Test {
 protected:
  static data::TensorDataset numbers(i64 size) {
    std::vector<i64> targets;
    for (i64 i = 0; i < size; ++i) targets.push_back(i);
    return {Tensor::zeros({size, 2}), Tensor::from(targets, {size})};
  }
  DataLoader loader(bool shuffle = true) const {
    return {dataset_, DistributedSampler(10, 4, 0, 1, {.shuffle = shuffle})};
  }

  data::TensorDataset dataset_ = numbers(10);
};

std::vector<i64> targets(const Batch& batch) {
  const auto span = batch.targets.span<i64>();
  return {span.begin(), span.end()};
}

std::vector<std::vector<i64>> rest(DataLoader& loader) {
  std::vector<std::vector<i64>> batches;
  for (const Batch& batch : loader) batches.push_back(targets(batch));
  return batches;
}

TEST_F(DataLoaderTest, runs_through_one_epoch_a_loop) {
  DataLoader ordered = loader(false);
  const std::vector<std::vector<i64>> expected{{0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9}};
  EXPECT_EQ(ordered.batches_per_epoch(), 3);
  EXPECT_EQ(ordered.epoch(), 0);
  EXPECT_EQ(rest(ordered), expected);
  EXPECT_EQ(ordered.epoch(), 1);
  EXPECT_EQ(rest(ordered), expected);
  EXPECT_EQ(ordered.epoch(), 2);
}

TEST_F(DataLoaderTest, gives_the_part_of_its_rank) {
  DataLoader second(dataset_, DistributedSampler(10, 4, 1, 2, {.shuffle = false}));
  EXPECT_EQ(rest(second), (std::vector<std::vector<i64>>{{2, 3}, {6, 7}, {9}}));
}

TEST_F(DataLoaderTest, gives_an_empty_batch_for_an_empty_part) {
  DataLoader first(dataset_, DistributedSampler(10, 9, 0, 2, {.shuffle = false}));
  std::vector<i64> sizes;
  for (const Batch& batch : first) sizes.push_back(batch.size());
  EXPECT_EQ(sizes, (std::vector<i64>{4, 0}));
}

TEST_F(DataLoaderTest, goes_on_after_a_break) {
  DataLoader ordered = loader(false);
  for (const Batch& batch : ordered) {
    if (targets(batch)[0] == 4) break;
  }
  EXPECT_EQ(ordered.epoch(), 0);
  EXPECT_EQ(rest(ordered), (std::vector<std::vector<i64>>{{8, 9}}));
  EXPECT_EQ(ordered.epoch(), 1);
}

TEST_F(DataLoaderTest, ends_the_epoch_in_the_loop_after_a_break_from_the_last_batch) {
  DataLoader ordered = loader(false);
  for (const Batch& batch : ordered) {
    if (targets(batch)[0] == 8) break;
  }
  EXPECT_EQ(ordered.epoch(), 0);
  EXPECT_TRUE(rest(ordered).empty());
  EXPECT_EQ(ordered.epoch(), 1);
  EXPECT_EQ(rest(ordered).size(), 3U);
}

TEST_F(DataLoaderTest, counts_the_batch_in_hand_as_consumed_when_it_saves) {
  DataLoader uninterrupted = loader();
  std::vector<StateDict> states;
  for ([[maybe_unused]] const Batch& batch : uninterrupted) {
    states.push_back(uninterrupted.state_dict());
  }
  DataLoader reference = loader();
  const auto all = rest(reference);
  const auto next_epoch = rest(reference);
  ASSERT_EQ(states.size(), all.size());
  for (std::size_t k = 0; k < states.size(); ++k) {
    DataLoader resumed = loader();
    resumed.restore(states[k]);
    using Batches = std::vector<std::vector<i64>>;
    EXPECT_EQ(rest(resumed), Batches(all.begin() + static_cast<std::ptrdiff_t>(k) + 1, all.end()));
    EXPECT_EQ(resumed.epoch(), 1);
    EXPECT_EQ(rest(resumed), next_epoch);
  }
}

TEST_F(DataLoaderTest, goes_on_from_a_state_restored_in_the_loop) {
  DataLoader ordered = loader(false);
  const StateDict start = ordered.state_dict();
  std::vector<i64> firsts;
  for (const Batch& batch : ordered) {
    firsts.push_back(targets(batch)[0]);
    if (firsts.size() == 2) ordered.restore(start);
  }
  EXPECT_EQ(firsts, (std::vector<i64>{0, 4, 0, 4, 8}));
}

TEST_F(DataLoaderTest, refuses_a_state_of_other_data) {
  DataLoader source(dataset_, DistributedSampler(10, 4, 0, 1, {.seed = 1}));
  DataLoader target = loader();
  EXPECT_THROW(target.check_restore(source.state_dict()), StateError);
  EXPECT_THROW(target.restore(source.state_dict()), StateError);
}

TEST_F(DataLoaderTest, refuses_a_sampler_for_another_dataset) {
  EXPECT_THROW(DataLoader(dataset_, DistributedSampler(9, 4, 0, 1)), OptionError);
}

}  // namespace data_loader_test
}  // namespace lockstep::testing
