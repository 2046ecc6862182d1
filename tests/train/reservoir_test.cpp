#include "lockstep/train/reservoir.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "lockstep/checkpoint/checkpoint.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "parallel/rank_groups.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep::train {
namespace reservoir_test {

using lockstep::testing::RankGroup;
using lockstep::testing::throws;
using lockstep::testing::world;

// Snapshots first, first + 1, …: the input of number i is (i, -i), and its target 2 i.
void show(Reservoir& reservoir, std::int64_t first, std::int64_t count) {
  Tensor inputs = Tensor::empty({count, 2}, DType::f64), targets = Tensor::empty({count, 1});
  for (std::int64_t i = 0; i < count; ++i) {
    const auto number = static_cast<double>(first + i);
    inputs.data<double>()[2 * i] = number;
    inputs.data<double>()[2 * i + 1] = -number;
    targets.data<float>()[i] = static_cast<float>(2 * number);
  }
  reservoir.add(inputs, targets);
}

Reservoir make(std::int64_t capacity, std::uint64_t seed = 1, const Communicator& ranks = world()) {
  return Reservoir(capacity, {2}, {1}, ranks, {.input_dtype = DType::f64, .seed = seed});
}

// The numbers of the snapshots in a batch, whose rows must belong together.
std::vector<std::int64_t> numbers(const data::Batch& batch) {
  std::vector<std::int64_t> found;
  EXPECT_EQ(batch.inputs.shape(), (Shape{batch.size(), 2}));
  EXPECT_EQ(batch.targets.shape(), (Shape{batch.size(), 1}));
  for (std::int64_t i = 0; i < batch.size(); ++i) {
    const double number = batch.inputs.span<double>()[static_cast<std::size_t>(2 * i)];
    EXPECT_EQ(batch.inputs.span<double>()[static_cast<std::size_t>(2 * i + 1)], -number);
    EXPECT_EQ(batch.targets.span<float>()[static_cast<std::size_t>(i)], 2 * number);
    found.push_back(static_cast<std::int64_t>(number));
  }
  return found;
}

// How often each of `count` snapshots is in batches that all ranks draw, over all ranks.
std::vector<std::int64_t> counts_of(Reservoir& reservoir, int draws, std::int64_t samples,
                                    std::int64_t count, const Communicator& ranks = world()) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(count));
  for (int draw = 0; draw < draws; ++draw) {
    for (const std::int64_t number : numbers(reservoir.draw(samples))) {
      ++counts[static_cast<std::size_t>(number)];
    }
  }
  ranks.all_reduce(std::span(counts));
  return counts;
}

TEST(Reservoir, keeps_each_snapshot_with_the_same_probability) {
  constexpr std::int64_t snapshots = 120, kept = 12;
  constexpr int trials = 2000;
  std::vector<int> counts(snapshots);
  for (int trial = 0; trial < trials; ++trial) {
    // This rank's own, by a seed of its own: rank 0 of a communicator of one.
    Communicator self(MPI_COMM_SELF);
    Reservoir reservoir = make(kept, static_cast<std::uint64_t>(trial * 10 + world().rank()), self);
    for (std::int64_t first = 0; first < snapshots; first += 40) show(reservoir, first, 40);
    EXPECT_EQ(reservoir.size(), kept);
    EXPECT_EQ(reservoir.seen(), snapshots);
    for (const std::int64_t number : numbers(reservoir.draw(kept))) {
      ++counts[static_cast<std::size_t>(number)];
    }
    self.close();
  }
  // Binomial(2000, 0.1): mean 200, deviation 13.4.
  for (const int count : counts) EXPECT_NEAR(count, 200, 5 * 13.4);
  double chi_square = 0;
  for (const int count : counts) chi_square += (count - 200.0) * (count - 200.0) / 200;
  EXPECT_LT(chi_square, 119 + 5 * std::sqrt(2 * 119.0));
}

TEST(Reservoir, draws_each_snapshot_of_all_ranks_as_often_however_uneven_they_are) {
  // Rank r has seen 30 r snapshots: rank 0 none, unless it is alone.
  const int rank = world().rank(), ranks = world().size();
  const auto before = [](int r) { return 30 * r * (r - 1) / 2; };
  const std::int64_t own = ranks == 1 ? 30 : 30 * rank;
  const std::int64_t all = ranks == 1 ? 30 : before(ranks);
  Reservoir reservoir = make(400 * ranks);
  show(reservoir, before(rank), own);
  constexpr int draws = 600;
  const std::int64_t samples = 20;
  const std::vector<std::int64_t> counts = counts_of(reservoir, draws, samples, all);
  EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), std::int64_t{0}), draws * samples);
  const double mean = static_cast<double>(draws * samples) / static_cast<double>(all);
  for (const std::int64_t count : counts) {
    EXPECT_NEAR(static_cast<double>(count), mean, 5.5 * std::sqrt(mean));
  }
  // Each rank has its share of every batch, to less than one sample.
  for (int draw = 0; draw < 20; ++draw) {
    const double share = static_cast<double>(own) / static_cast<double>(all) * 50;
    EXPECT_NEAR(static_cast<double>(reservoir.draw(50).size()), share, 1);
  }
}

TEST(Reservoir, draws_what_it_has_dropped_for_in_proportion_to_what_it_has_seen) {
  // All ranks keep 10, of 1000 on rank 0, and of 10 on the others.
  const int rank = world().rank(), ranks = world().size();
  Reservoir reservoir = make(10 * ranks);
  show(reservoir, 1000 * rank, rank == 0 ? 1000 : 10);
  std::int64_t on_first = 0;
  constexpr int draws = 400;
  for (int draw = 0; draw < draws; ++draw) {
    const data::Batch batch = reservoir.draw(8);
    if (rank == 0) on_first += batch.size();
  }
  const double share = 1000.0 / (1000 + 10 * (ranks - 1));
  if (rank == 0) {
    EXPECT_NEAR(static_cast<double>(on_first), draws * 8 * share, 50);
  }
}

TEST(Reservoir, has_a_snapshot_once_in_a_batch_as_long_as_there_are_enough) {
  const int ranks = world().size();
  Reservoir reservoir = make(20 * ranks);
  show(reservoir, 100 * world().rank(), 20);
  for (int draw = 0; draw < 50; ++draw) {
    const std::vector<std::int64_t> found = numbers(reservoir.draw(15 * ranks));
    EXPECT_EQ(std::set<std::int64_t>(found.begin(), found.end()).size(), found.size());
    EXPECT_EQ(found.size(), 15U);
  }
  std::map<std::int64_t, int> times;
  for (const std::int64_t number : numbers(reservoir.draw(50 * ranks))) ++times[number];
  EXPECT_EQ(times.size(), 20U);
  for (const auto& [number, count] : times) EXPECT_TRUE(count == 2 || count == 3) << number;
}

TEST(Reservoir, draws_the_same_again_for_the_same_seed_and_other_batches_each_time) {
  Reservoir one = make(40), same = make(40), other = make(40, 2);
  for (Reservoir* reservoir : {&one, &same, &other}) show(*reservoir, 0, 200);
  const auto first = numbers(one.draw(16 * world().size()));
  EXPECT_EQ(first, numbers(same.draw(16 * world().size())));
  EXPECT_NE(first, numbers(other.draw(16 * world().size())));
  EXPECT_NE(first, numbers(one.draw(16 * world().size())));
}

TEST(Reservoir, refuses_what_does_not_fit_and_stays_as_it_was) {
  Reservoir reservoir = make(40);
  show(reservoir, 0, 5);
  const StateDict before = reservoir.state_dict().clone();
  const Tensor inputs = Tensor::zeros({3, 2}, DType::f64), targets = Tensor::zeros({3, 1});
  EXPECT_TRUE(throws<ShapeError>(
      [&] {
        reservoir.add(Tensor::zeros({3, 3}, DType::f64), targets);
      },
      "inputs", "(3, 2)", "(3, 3)"));
  EXPECT_TRUE(throws<ShapeError>(
      [&] {
        reservoir.add(inputs, Tensor::zeros({2, 1}));
      },
      "targets", "(3, 1)", "(2, 1)"));
  EXPECT_TRUE(throws<ShapeError>([&] { reservoir.add(inputs, Tensor()); }, "targets"));
  EXPECT_TRUE(throws<ShapeError>([&] { reservoir.add(Tensor(), targets); }, "inputs"));
  EXPECT_TRUE(throws<ShapeError>([&] { reservoir.add(Tensor::full({}, 1, DType::f64), targets); },
                                 "inputs", "()"));
  EXPECT_TRUE(throws<DTypeError>(
      [&] {
        reservoir.add(Tensor::zeros({3, 2}), targets);
      },
      "f64", "f32"));
  EXPECT_TRUE(throws<OptionError>([&] { reservoir.draw(0); }, "found 0"));
  if (world().size() > 1) {
    EXPECT_TRUE(throws<OptionError>([&] { reservoir.draw(8 + world().rank() % 2); }, "8", "9"));
    EXPECT_TRUE(throws<OptionError>([&] { make(40 + world().rank()); }, "rank 0", "40"));
    EXPECT_TRUE(throws<OptionError>([&] { make(world().size() - 1); }, "a row for each"));
  }
  EXPECT_TRUE(throws<OptionError>(
      [] { Reservoir(40, {2}, {1}, world(), {.input_dtype = DType::i64}); }, "i64"));
  EXPECT_TRUE(bit_equal(before, reservoir.state_dict()));
  Reservoir nothing = make(40);
  EXPECT_TRUE(throws<StateError>([&] { nothing.draw(8); }, "no rank has seen any"));
  show(nothing, 0, 0);
  EXPECT_EQ(nothing.seen(), 0);
}

// One of `capacity` rows that a checkpoint was loaded into, by some of the ranks.
struct Saved : ::testing::Test {
  static constexpr std::int64_t capacity = 60;
  std::filesystem::path file = std::filesystem::temp_directory_path() / "lockstep-reservoir-test";

  // Rank 0 has seen 600, and the others 100 less each: in rows of different weight.
  void save() {
    Reservoir reservoir = make(capacity);
    show(reservoir, 1000 * world().rank(), 600 - 100 * world().rank());
    reservoir.draw(8);
    checkpoint::save(file, world(), {{"reservoir", reservoir}});
  }
  void TearDown() override {
    world().barrier();
    if (world().rank() == 0) std::filesystem::remove(file);
  }
};

TEST_F(Saved, goes_on_with_the_same_draws_on_as_many_ranks) {
  Reservoir reservoir = make(capacity), loaded = make(capacity);
  show(reservoir, 1000 * world().rank(), 7 + 90 * world().rank());
  reservoir.draw(8);
  checkpoint::save(file, world(), {{"reservoir", reservoir}});
  show(loaded, 5000, 3);
  loaded.draw(3);
  checkpoint::load(file, world(), {{"reservoir", loaded}});
  EXPECT_EQ(loaded.seen(), reservoir.seen());
  EXPECT_TRUE(bit_equal(loaded.state_dict(), reservoir.state_dict()));
  for (int i = 0; i < 3; ++i) {
    show(reservoir, 3000, 50);
    show(loaded, 3000, 50);
    EXPECT_EQ(numbers(loaded.draw(16)), numbers(reservoir.draw(16)));
  }
}

TEST_F(Saved, draws_without_bias_on_any_number_of_ranks) {
  save();
  for (int members = 1; members < world().size(); ++members) {
    std::vector<int> list(static_cast<std::size_t>(members));
    std::iota(list.begin(), list.end(), 0);
    RankGroup group(list);
    if (!group.is_member()) continue;
    Reservoir loaded = make(capacity, 1, *group.ranks);
    checkpoint::load(file, *group.ranks, {{"reservoir", loaded}});
    std::int64_t seen = 0, expected = 0;
    for (int rank = 0; rank < world().size(); ++rank) expected += 600 - 100 * rank;
    seen = group.ranks->all_reduce(loaded.seen());
    EXPECT_NEAR(static_cast<double>(seen), static_cast<double>(expected), members);
    constexpr int draws = 200;
    std::vector<std::int64_t> of_rank(static_cast<std::size_t>(world().size()));
    for (int draw = 0; draw < draws; ++draw) {
      for (const std::int64_t number : numbers(loaded.draw(10))) {
        ++of_rank[static_cast<std::size_t>(number / 1000)];
      }
    }
    group.ranks->all_reduce(std::span(of_rank));
    for (int rank = 0; rank < world().size(); ++rank) {
      // A rank's rows are drawn anew in whole numbers, of which there are 60 in all.
      const double share = (600.0 - 100 * rank) / static_cast<double>(expected);
      EXPECT_NEAR(static_cast<double>(of_rank[static_cast<std::size_t>(rank)]) / (draws * 10),
                  share, 2.5 / 60)
          << members << " ranks, snapshots of rank " << rank;
    }
    group.close();
  }
}

TEST_F(Saved, takes_no_state_that_is_not_its_own) {
  Reservoir reservoir = make(capacity);
  show(reservoir, 0, 5);
  const StateDict before = reservoir.state_dict().clone();
  const auto refuses = [&](const char* key, StateValue value, const char* message) {
    StateDict source = before.clone();
    source[key] = std::move(value);
    bool refused = false;
    try {
      reservoir.restore(source);
    } catch (const Error& error) {
      refused = std::string(error.what()).find(message) != std::string::npos;
    }
    EXPECT_TRUE(bit_equal(before, reservoir.state_dict())) << key;
    return refused;
  };
  EXPECT_TRUE(refuses("draws", -1, "draws"));
  EXPECT_TRUE(refuses("weights", Tensor::full({capacity}, 0.5, DType::f64), "0.5"));
  EXPECT_TRUE(refuses("weights", Tensor::full({capacity}, std::nan(""), DType::f64), "nan"));
  EXPECT_TRUE(refuses("inputs", Tensor::zeros({capacity, 2}), "inputs"));
  EXPECT_TRUE(refuses("targets", Tensor::zeros({capacity, 2}), "targets"));
  EXPECT_TRUE(refuses("unknown", 1, "unknown"));
}

}  // namespace reservoir_test
}  // namespace lockstep::train
