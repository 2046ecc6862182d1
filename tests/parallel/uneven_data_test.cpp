// Ranks with other numbers of samples, and of batches: against one process that has all samples.

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "lockstep/autograd/losses.hpp"
#include "lockstep/autograd/operations.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/parallel/data_parallel.hpp"
#include "lockstep/parallel/join.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "parallel/batches.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace uneven_data_test {

using namespace testing;

Batch own_rows(const Batch& global, const std::vector<std::int64_t>& rows) {
  return rows_of(global, rows, world().rank());
}

// Sums of the losses over all samples.
auto sum_loss_of(nn::Module& model) {
  return [&model](const Batch& batch) {
    return mean_squared_error(model(batch.x), batch.y) * static_cast<double>(batch.size());
  };
}

TEST(UnevenData, a_sum_is_that_over_all_samples) {
  for (const std::int64_t parts : {1, 3}) {
    nn::Sequential model = make_model(), serial = make_model();
    DataParallel replica(model, world(), {.reduction = GradientReduction::sum, .predivide = 4});
    const Batch global = draw_batch(1, total(uneven_rows()));
    replica.backward(own_rows(global, uneven_rows()), loss_of(model), {.parts = parts});
    sum_loss_of(serial)(global).backward();
    expect_close_gradients(model, serial);
  }
}

TEST(UnevenData, a_weight_replaces_the_number_of_samples) {
  nn::Sequential model = make_model(), serial = make_model();
  DataParallel replica(model, world());
  const std::vector<std::int64_t> rows(static_cast<std::size_t>(world().size()), 3);
  const Batch global = draw_batch(1, total(rows));
  replica.backward(own_rows(global, rows), loss_of(model), {.weight = world().rank() + 0.5});
  double weights = 0;
  for (int rank = 0; rank < world().size(); ++rank) weights += rank + 0.5;
  for (int rank = 0; rank < world().size(); ++rank) {
    (loss_of(serial)(rows_of(global, rows, rank)) * ((rank + 0.5) / weights)).backward();
  }
  expect_close_gradients(model, serial);
}

TEST(UnevenData, refuses_bad_weights_of_one_rank_on_all) {
  nn::Sequential model = make_model();
  DataParallel replica(model, world());
  const int last = world().size() - 1;
  const std::string culprit = "(rank " + std::to_string(last) + ")";
  for (const double bad : {-1.0, std::nan(""), HUGE_VAL}) {
    const double own = world().rank() == last ? bad : 1;
    EXPECT_TRUE(throws<OptionError>(
        [&] { replica.backward(draw_batch(1, 3), loss_of(model), {.weight = own}); },
        "expected a weight that is 0 or a positive normal number of f32", culprit));
    for (const Parameter& parameter : model.parameters()) EXPECT_FALSE(parameter.has_grad());
  }
  EXPECT_TRUE(throws<OptionError>(
      [&] { replica.backward(draw_batch(1, 3), loss_of(model), {.parts = 0}); }, "one part"));
  replica.backward(draw_batch(1, 3), loss_of(model));
}

TEST(UnevenData, batches_under_no_sync_equal_one_large_batch) {
  for (const GradientReduction reduction : {GradientReduction::mean, GradientReduction::sum}) {
    nn::Sequential model = make_model(), serial = make_model();
    DataParallel replica(model, world(), {.reduction = reduction, .predivide = 2});
    for (int step = 0; step < 2; ++step) {  // the second adds to the first
      const Batch global = draw_batch(static_cast<std::uint64_t>(step), 3 * total(uneven_rows()));
      const std::int64_t third = total(uneven_rows());
      auto deferral = replica.no_sync();
      replica.backward(own_rows(global.slice(0, third), uneven_rows()), loss_of(model));
      // Other ranks have the samples of this one.
      std::vector<std::int64_t> reversed = uneven_rows();
      std::reverse(reversed.begin(), reversed.end());
      replica.backward(own_rows(global.slice(third, 2 * third), reversed), loss_of(model),
                       {.parts = 2});
      if (step == 1) deferral.reset();
      replica.backward(own_rows(global.slice(2 * third, 3 * third), uneven_rows()), loss_of(model));
      if (step == 0) replica.reducer().finish();
      const bool mean = reduction == GradientReduction::mean;
      (mean ? loss_of(serial)(global) : sum_loss_of(serial)(global)).backward();
      expect_close_gradients(model, serial, "step " + std::to_string(step));
    }
  }
}

TEST(UnevenData, plain_backwards_under_no_sync_add_up) {
  nn::Sequential model = make_model(), serial = make_model();
  DataParallel replica(model, world());
  const std::vector<std::int64_t> rows(static_cast<std::size_t>(world().size()), 4);
  const Batch first = draw_batch(1, total(rows)), second = draw_batch(2, total(rows));
  {
    const auto deferral = replica.no_sync();
    loss_of(model)(own_rows(first, rows)).backward();
  }
  loss_of(model)(own_rows(second, rows)).backward();
  loss_of(serial)(first).backward();
  loss_of(serial)(second).backward();
  expect_close_gradients(model, serial);
}

TEST(UnevenData, a_plain_backward_is_not_mixed_with_batches_under_no_sync) {
  nn::Sequential model = make_model();
  DataParallel replica(model, world());
  auto deferral = replica.no_sync();
  const Batch batch = draw_batch(1, 3);
  replica.backward(batch, loss_of(model));
  Parameter first = model.parameters().front();
  EXPECT_TRUE(throws<StateError>([&] { replica.reducer().mark_ready(first); }, "counts samples"));
  EXPECT_TRUE(throws<StateError>([&] { replica.reducer().set_weight(2); }, "number of samples"));
  EXPECT_TRUE(throws<StateError>([&] { loss_of(model)(batch).backward(); }, "counts samples"));
  replica.reducer().discard();
  loss_of(model)(batch).backward();
  EXPECT_TRUE(
      throws<StateError>([&] { replica.backward(batch, loss_of(model)); }, "and count none"));
  replica.reducer().discard();
  deferral.reset();
  replica.backward(batch, loss_of(model));
}

TEST(UnevenData, no_sync_of_one_rank_alone_is_an_error_on_all) {
  if (world().size() == 1) return;
  nn::Sequential model = make_model();
  DataParallel replica(model, world());
  const Batch batch = draw_batch(1, 3);
  if (world().rank() == 0) {
    const auto deferral = replica.no_sync();
    replica.backward(batch, loss_of(model));
  }
  EXPECT_TRUE(throws<StateError>([&] { replica.backward(batch, loss_of(model)); },
                                 "the ranks do not make the same call"));
}

TEST(UnevenData, a_batch_is_not_mixed_with_plain_backwards_under_no_sync) {
  nn::Sequential model = make_model(), serial = make_model();
  DataParallel replica(model, world());
  const Batch batch = draw_batch(1, 3);
  auto deferral = replica.no_sync();
  loss_of(model)(batch).backward();
  deferral.reset();
  EXPECT_TRUE(
      throws<StateError>([&] { replica.backward(batch, loss_of(model)); }, "not reduced yet"));
  for (const Parameter& parameter : model.parameters()) EXPECT_FALSE(parameter.has_grad());
  replica.backward(batch, loss_of(model));
  loss_of(serial)(batch).backward();
  expect_close_gradients(model, serial);
}

TEST(UnevenData, a_bad_option_of_one_rank_under_no_sync_fails_the_reduction_on_all) {
  nn::Sequential model = make_model();
  DataParallel replica(model, world());
  const Batch batch = draw_batch(1, 3);
  const bool fails = world().rank() == world().size() - 1;
  auto deferral = replica.no_sync();
  const auto backward = [&] { replica.backward(batch, loss_of(model), {.parts = fails ? 0 : 1}); };
  if (fails) {
    EXPECT_TRUE(throws<OptionError>(backward, "one part"));
  } else {
    backward();
  }
  deferral.reset();
  EXPECT_TRUE(throws<OptionError>([&] { replica.backward(batch, loss_of(model)); }, "one part"));
  replica.backward(batch, loss_of(model));
}

TEST(UnevenData, a_loss_that_throws_under_no_sync_fails_the_reduction_on_all_ranks) {
  nn::Sequential model = make_model(), serial = make_model();
  DataParallel replica(model, world());
  const Batch batch = draw_batch(1, 3);
  auto deferral = replica.no_sync();
  replica.backward(batch, loss_of(model));
  const bool fails = world().rank() == world().size() - 1;
  const auto loss = [&](const Batch& some) {
    if (fails) throw std::runtime_error("no loss");
    return loss_of(model)(some);
  };
  if (fails) {
    EXPECT_TRUE(throws<std::runtime_error>([&] { replica.backward(batch, loss); }, "no loss"));
  } else {
    replica.backward(batch, loss);
  }
  deferral.reset();
  EXPECT_TRUE(throws<Error>([&] { replica.backward(batch, loss_of(model)); }, "no loss"));
  for (const Parameter& parameter : model.parameters()) EXPECT_FALSE(parameter.has_grad());
  replica.backward(batch, loss_of(model));
  loss_of(serial)(batch).backward();
  expect_close_gradients(model, serial);
}

TEST(UnevenData, ranks_that_run_out_join_in_until_all_have) {
  // Rank r has 2 + r batches, of other sizes, and the last of several has none.
  const auto batches_of = [](int rank) {
    std::vector<Batch> batches;
    const bool none = world().size() > 1 && rank == world().size() - 1;
    for (int i = 0; !none && i < 2 + rank; ++i) {
      batches.push_back(draw_batch(static_cast<std::uint64_t>(10 * rank + i), 1 + (rank + i) % 3));
    }
    return batches;
  };
  nn::Sequential model = make_model(), serial = make_model();
  DataParallel replica(model, world());
  NamedOptimizer optimizer(model.named_parameters(), optim::SGD({.lr = 0.1, .momentum = 0.9}));
  NamedOptimizer reference(serial.named_parameters(), optim::SGD({.lr = 0.1, .momentum = 0.9}));
  std::size_t most = 0;
  for (int rank = 0; rank < world().size(); ++rank) {
    most = std::max(most, batches_of(rank).size());
  }
  for (int epoch = 0; epoch < 2; ++epoch) {
    std::vector<Batch> own = batches_of(world().rank());
    std::size_t steps = 0, samples = 0;
    for (const Batch& batch : JoinedBatches(own, world())) {
      optimizer.zero_grad();
      samples += static_cast<std::size_t>(batch.size());
      replica.backward(batch, loss_of(model));
      optimizer.step();
      ++steps;
    }
    EXPECT_EQ(steps, most);
    std::size_t expected = 0;
    for (const Batch& batch : own) expected += static_cast<std::size_t>(batch.size());
    EXPECT_EQ(samples, expected);
    for (std::size_t step = 0; step < most; ++step) {
      reference.zero_grad();
      std::int64_t rows = 0;
      for (int rank = 0; rank < world().size(); ++rank) {
        const std::vector<Batch> batches = batches_of(rank);
        if (step >= batches.size()) continue;
        rows += batches[step].size();
        sum_loss_of(serial)(batches[step]).backward();
      }
      for (Parameter parameter : serial.parameters()) {
        for (double& number : parameter.mutable_grad().span<double>()) {
          number /= static_cast<double>(rows);
        }
      }
      reference.step();
    }
  }
  expect_close_states(model, serial);
  expect_equal_on_all_ranks(model);
}

TEST(UnevenData, all_stop_with_the_shortest_where_that_is_chosen) {
  std::vector<int> own(static_cast<std::size_t>(3 + world().rank()), 7);
  int steps = 0;
  for (const int batch : JoinedBatches(own, world(), UnevenInputs::shortest)) {
    EXPECT_EQ(batch, 7);
    ++steps;
  }
  EXPECT_EQ(steps, 3);
  std::vector<int> none(world().rank() == 0 ? 0 : 5);
  for ([[maybe_unused]] const int batch : JoinedBatches(none, world(), UnevenInputs::shortest)) {
    FAIL() << "rank 0 has no batch";
  }
}

TEST(UnevenData, a_batch_that_cannot_be_read_is_an_error_on_all_ranks) {
  // Fails where it begins, moves on, or gives a batch; a DataLoader reads when it moves on.
  enum class Where { begin, increment, dereference };
  struct Reader {
    struct Iterator {
      const Reader* reader;
      int position;
      int operator*() const {
        reader->fail_at(Where::dereference, position);
        return position;
      }
      Iterator& operator++() {
        reader->fail_at(Where::increment, ++position);
        return *this;
      }
      bool operator==(const Iterator&) const = default;
    };
    Iterator begin() const {
      fail_at(Where::begin, 1);
      return {this, 0};
    }
    Iterator end() const { return {this, 4}; }
    void fail_at(Where place, int position) const {
      const bool fails = place == where && position == 1 && world().rank() == world().size() - 1;
      if (fails) throw DataError("torn");
    }

    Where where;
  };
  for (const Where where : {Where::begin, Where::increment, Where::dereference}) {
    Reader reader{where};
    int steps = 0;
    EXPECT_TRUE(throws<DataError>(
        [&] {
          for ([[maybe_unused]] const int batch : JoinedBatches(reader, world())) ++steps;
        },
        "torn (rank " + std::to_string(world().size() - 1) + ")"));
    EXPECT_EQ(steps, where == Where::begin ? 0 : 1);
  }
}

}  // namespace uneven_data_test
}  // namespace lockstep
