// Running statistics and batch normalisation over ranks: against one process that has all samples.

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "comm/placements.hpp"
#include "lockstep/autograd/losses.hpp"
#include "lockstep/autograd/operations.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/nn/batch_norm.hpp"
#include "lockstep/nn/layers.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/parallel/data_parallel.hpp"
#include "lockstep/parallel/join.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "parallel/batches.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace replica_buffers_test {

using namespace testing;

nn::Sequential make_norm_model() {
  const nn::LinearOptions linear{.dtype = DType::f64};
  const nn::BatchNormOptions norm{.dtype = DType::f64};
  nn::Sequential model{nn::Linear(4, 8, linear), nn::BatchNorm(8, norm), nn::ReLU(),
                       nn::Linear(8, 6, linear), nn::BatchNorm(6, norm), nn::Tanh(),
                       nn::Linear(6, 2, linear)};
  model.initialize(3);
  return model;
}

Tensor buffer_of(const nn::Module& model, const std::string& name) {
  return model.state_dict().at(name).as_tensor();
}

// running_mean of the first norm after a step from (mean 0, with momentum 0.1) of those rows.
double expected_mean(nn::Sequential& model, const Tensor& rows) {
  const NoGrad no_grad;
  const Tensor y = model.at<nn::Linear>(0)(rows).value();
  double sum = 0;
  for (std::int64_t row = 0; row < y.shape()[0]; ++row) sum += y.data<double>()[row * 8];
  return 0.1 * sum / static_cast<double>(y.shape()[0]);
}

TEST(ReplicaBuffers, are_averaged_by_samples_and_counts_are_the_largest) {
  nn::Sequential model = make_norm_model();
  DataParallel replica(model, world());
  const auto rows = uneven_rows();
  const Batch global = draw_batch(1, total(rows));
  // The mean of means, weighted by samples, is that over all samples.
  const double expected = expected_mean(model, global.x);
  replica.backward(rows_of(global, rows, world().rank()), loss_of(model));
  EXPECT_NEAR(buffer_of(model, "1.running_mean").data<double>()[0], expected, 1e-14);
  EXPECT_EQ(buffer_of(model, "1.num_batches_tracked").item(), 1);
  expect_equal_on_all_ranks(model);
  // Nobody has samples: all stays as it is.
  const StateDict before = model.state_dict().clone();
  replica.backward(Batch(), loss_of(model));
  EXPECT_TRUE(bit_equal(model.state_dict(), before));
}

TEST(ReplicaBuffers, are_averaged_after_a_plain_backward_too) {
  nn::Sequential model = make_norm_model();
  const DataParallel replica(model, world());
  const std::vector<std::int64_t> rows(static_cast<std::size_t>(world().size()), 5);
  const Batch global = draw_batch(1, total(rows));
  const double expected = expected_mean(model, global.x);
  loss_of(model)(rows_of(global, rows, world().rank())).backward();
  EXPECT_NEAR(buffer_of(model, "1.running_mean").data<double>()[0], expected, 1e-14);
  expect_equal_on_all_ranks(model);
}

TEST(ReplicaBuffers, that_nobody_changes_keep_their_bits) {
  nn::Sequential model = make_norm_model();
  DataParallel replica(model, world());
  for (std::uint64_t step = 0; step < 5; ++step) {
    replica.backward(draw_batch(step, 4), loss_of(model));
  }
  model.eval();
  const StateDict before = model.state_dict().clone();
  for (std::uint64_t step = 0; step < 5; ++step) {
    // With which a mean of equal numbers is rounded.
    replica.backward(draw_batch(step, 4), loss_of(model), {.weight = 0.1 + 0.37 * world().rank()});
  }
  EXPECT_TRUE(bit_equal(model.state_dict(), before));
}

TEST(ReplicaBuffers, may_be_those_of_rank_0_or_local) {
  const auto rows = std::vector<std::int64_t>(static_cast<std::size_t>(world().size()), 5);
  const Batch global = draw_batch(1, total(rows));
  for (const auto policy : {ReplicaBufferPolicy::broadcast, ReplicaBufferPolicy::local}) {
    nn::Sequential model = make_norm_model();
    DataParallel replica(model, world(), {.buffers = policy});
    const int whose = policy == ReplicaBufferPolicy::broadcast ? 0 : world().rank();
    const double expected = expected_mean(model, rows_of(global, rows, whose).x);
    replica.backward(rows_of(global, rows, world().rank()), loss_of(model));
    EXPECT_NEAR(buffer_of(model, "1.running_mean").data<double>()[0], expected, 1e-14);
  }
}

TEST(ReplicaBuffers, are_as_before_where_a_rank_fails) {
  for (const auto policy :
       {ReplicaBufferPolicy::average, ReplicaBufferPolicy::broadcast, ReplicaBufferPolicy::local}) {
    nn::Sequential model = make_norm_model();
    DataParallel replica(model, world(), {.buffers = policy});
    const StateDict before = model.state_dict().clone();
    const auto loss = [&](const Batch& batch) {
      Variable value = loss_of(model)(batch);
      if (world().rank() == world().size() - 1) throw std::runtime_error("no loss");
      return value;
    };
    EXPECT_TRUE(throws<Error>([&] { replica.backward(draw_batch(1, 4), loss); }, "no loss"));
    EXPECT_TRUE(bit_equal(model.state_dict(), before));
  }
}

TEST(ReplicaBuffers, are_those_of_the_first_rank_that_has_samples) {
  if (world().size() == 1) return;
  nn::Sequential model = make_norm_model();
  DataParallel replica(model, world(), {.buffers = ReplicaBufferPolicy::broadcast});
  const Batch batch = draw_batch(1, 4);
  const double expected = expected_mean(model, batch.x);
  replica.backward(world().rank() == 1 ? batch : Batch(), loss_of(model));
  EXPECT_NEAR(buffer_of(model, "1.running_mean").data<double>()[0], expected, 1e-14);
  expect_equal_on_all_ranks(model);
}

TEST(ReplicaBuffers, are_as_before_the_first_batch_where_one_under_no_sync_fails_or_is_discarded) {
  nn::Sequential model = make_norm_model();
  DataParallel replica(model, world());
  const StateDict before = model.state_dict().clone();
  const Batch batch = draw_batch(static_cast<std::uint64_t>(world().rank()), 4);
  for (const bool discards : {false, true}) {
    {
      const auto deferral = replica.no_sync();
      replica.backward(batch, loss_of(model));
      if (world().rank() == 0 && !discards) {
        const auto loss = [&](const Batch& some) {
          loss_of(model)(some);
          throw DataError("no loss");
          return Variable();
        };
        EXPECT_THROW(replica.backward(batch, loss), DataError);
      }
      replica.backward(batch, loss_of(model));
    }
    if (discards) {
      replica.reducer().discard();
    } else {
      EXPECT_TRUE(throws<DataError>([&] { replica.reducer().finish(); }, "no loss (rank 0)"));
    }
    EXPECT_TRUE(bit_equal(model.state_dict(), before));
  }
}

TEST(ReplicaBuffers, have_the_same_bits_on_any_ranks_with_logical_replicas) {
  const auto train = [](const Communicator& ranks) {
    nn::Sequential model = make_norm_model();
    DataParallel replica(model, ranks, {.logical_replicas = 8});
    NamedOptimizer optimizer(model.named_parameters(), optim::Adam({.lr = 0.01}));
    for (std::uint64_t step = 0; step < 4; ++step) {
      const Batch global = draw_batch(step, 32);
      const std::int64_t first = 8 * ranks.rank() / ranks.size(),
                         last = 8 * (ranks.rank() + 1) / ranks.size();
      optimizer.zero_grad();
      replica.backward(global.slice(4 * first, 4 * last), loss_of(model));
      optimizer.step();
    }
    return model.state_dict().clone();
  };
  const StateDict alone = train(Communicator(MPI_COMM_SELF));
  EXPECT_EQ(alone.at("1.num_batches_tracked").as_tensor().item(), 4);
  for (const auto& arrangement : arrangements()) {
    Communicator ranks(world().handle(), arrangement.options);
    EXPECT_TRUE(bit_equal(train(ranks), alone)) << arrangement.name;
    ranks.close();
  }
}

TEST(ReplicaBuffers, refuse_policies_that_logical_replicas_cannot_have) {
  nn::Sequential model = make_norm_model();
  EXPECT_TRUE(throws<OptionError>(
      [&] {
        DataParallel(model, world(),
                     {.buffers = ReplicaBufferPolicy::local, .logical_replicas = 4});
      },
      "can only be averaged"));
  EXPECT_TRUE(throws<OptionError>(
      [&] {
        DataParallel(model, world(), {.synchronise_batch_norm = true, .logical_replicas = 4});
      },
      "no synchronise_batch_norm"));
  EXPECT_TRUE(throws<OptionError>(
      [&] {
        DataParallel(model, world(),
                     {.buffers = ReplicaBufferPolicy::local, .synchronise_batch_norm = true});
      },
      "with local buffers"));
  if (world().size() == 1) return;
  const bool synchronise = world().rank() == 1;
  EXPECT_TRUE(throws<OptionError>(
      [&] { DataParallel(model, world(), {.synchronise_batch_norm = synchronise}); },
      "synchronise_batch_norm = false as on rank 0, found average and true", "(rank 1)"));
}

TEST(SynchronisedBatchNorm, trains_as_one_process_that_has_all_samples) {
  for (const auto& arrangement : arrangements()) {
    Communicator ranks(world().handle(), arrangement.options);
    {
      nn::Sequential model = make_norm_model(), serial = make_norm_model();
      DataParallel replica(model, ranks, {.synchronise_batch_norm = true});
      NamedOptimizer optimizer(model.named_parameters(), optim::SGD({.lr = 0.1}));
      NamedOptimizer reference(serial.named_parameters(), optim::SGD({.lr = 0.1}));
      for (std::uint64_t step = 0; step < 4; ++step) {
        std::vector<std::int64_t> rows = uneven_rows();
        if (step % 2 == 1) std::reverse(rows.begin(), rows.end());
        const Batch global = draw_batch(step, total(rows));
        optimizer.zero_grad();
        replica.backward(rows_of(global, rows, world().rank()), loss_of(model));
        optimizer.step();
        reference.zero_grad();
        loss_of(serial)(global).backward();
        expect_close_gradients(model, serial, arrangement.name + " step " + std::to_string(step));
        reference.step();
      }
      expect_close_states(model, serial);
      expect_equal_on_all_ranks(model);
    }
    ranks.close();
  }
}

TEST(SynchronisedBatchNorm, joins_in_where_ranks_have_run_out) {
  nn::Sequential model = make_norm_model();
  DataParallel replica(model, world(), {.synchronise_batch_norm = true});
  NamedOptimizer optimizer(model.named_parameters(), optim::SGD({.lr = 0.1}));
  std::vector<Batch> own;
  for (int i = 0; i <= 2 * world().rank(); ++i) {
    own.push_back(draw_batch(static_cast<std::uint64_t>(i), 3));
  }
  int steps = 0;
  for (const Batch& batch : JoinedBatches(own, world())) {
    optimizer.zero_grad();
    replica.backward(batch, loss_of(model));
    optimizer.step();
    ++steps;
  }
  EXPECT_EQ(steps, 2 * world().size() - 1);
  expect_equal_on_all_ranks(model);
}

TEST(SynchronisedBatchNorm, accumulates_under_no_sync) {
  nn::Sequential model = make_norm_model(), serial = make_norm_model();
  DataParallel replica(model, world(), {.synchronise_batch_norm = true});
  const auto rows = uneven_rows();
  const Batch first = draw_batch(1, total(rows)), second = draw_batch(2, total(rows));
  {
    const auto deferral = replica.no_sync();
    replica.backward(rows_of(first, rows, world().rank()), loss_of(model));
  }
  replica.backward(rows_of(second, rows, world().rank()), loss_of(model));
  // Each batch has statistics of its own.
  (loss_of(serial)(first) * 0.5).backward();
  (loss_of(serial)(second) * 0.5).backward();
  expect_close_gradients(model, serial);
  expect_close_states(model, serial);
}

TEST(SynchronisedBatchNorm, does_not_mix_batches_where_a_rank_has_samples_of_the_second_alone) {
  nn::Sequential model = make_norm_model(), serial = make_norm_model();
  DataParallel replica(model, world(), {.synchronise_batch_norm = true});
  const std::vector<std::int64_t> rows = uneven_rows();
  const std::vector<std::int64_t> reversed(rows.rbegin(), rows.rend());
  const Batch first = draw_batch(1, total(rows)), second = draw_batch(2, total(rows));
  {
    const auto deferral = replica.no_sync();
    replica.backward(rows_of(first, rows, world().rank()), loss_of(model));
  }
  replica.backward(rows_of(second, reversed, world().rank()), loss_of(model));
  (loss_of(serial)(first) * 0.5).backward();
  (loss_of(serial)(second) * 0.5).backward();
  expect_close_gradients(model, serial);
}

TEST(SynchronisedBatchNorm, a_rank_that_fails_between_layers_is_an_error_on_all) {
  nn::Sequential model = make_norm_model();
  DataParallel replica(model, world(), {.synchronise_batch_norm = true});
  const StateDict before = model.state_dict().clone();
  const bool fails = world().rank() == world().size() - 1;
  for (int stage = 0; stage < 3; ++stage) {
    const auto loss = [&](const Batch& batch) {
      if (fails && stage == 0) throw DataError("no loss");
      Variable x = model[1](model[0](batch.x));
      if (fails && stage == 1) throw DataError("no loss");
      x = model[6](model[5](model[4](model[3](model[2](x)))));
      if (fails && stage == 2) throw DataError("no loss");
      return mean_squared_error(x, batch.y);
    };
    EXPECT_TRUE(throws<DataError>([&] { replica.backward(draw_batch(1, 4), loss); }, "no loss"))
        << stage;
    EXPECT_TRUE(bit_equal(model.state_dict(), before)) << stage;
  }
  replica.backward(draw_batch(1, 4), loss_of(model));
  expect_equal_on_all_ranks(model);
}

TEST(SynchronisedBatchNorm, the_rank_that_fails_under_no_sync_is_the_one_that_is_named) {
  nn::Sequential model = make_norm_model();
  DataParallel replica(model, world(), {.synchronise_batch_norm = true});
  const int last = world().size() - 1;
  const auto loss = [&](const Batch& batch) {
    if (world().rank() == last) throw DataError("no loss");
    return loss_of(model)(batch);
  };
  const Batch batch = draw_batch(1, 4);
  auto deferral = replica.no_sync();
  EXPECT_THROW(replica.backward(batch, loss), Error);
  deferral.reset();
  EXPECT_TRUE(throws<DataError>([&] { replica.backward(batch, loss_of(model)); },
                                "no loss (rank " + std::to_string(last) + ")"));
  replica.backward(batch, loss_of(model));
  expect_equal_on_all_ranks(model);
}

TEST(SynchronisedBatchNorm, layers_in_another_order_are_an_error_on_all) {
  if (world().size() == 1) return;
  const nn::BatchNormOptions options{.dtype = DType::f64};
  nn::Sequential model{nn::BatchNorm(4, options), nn::BatchNorm(4, options)};
  DataParallel replica(model, world(), {.synchronise_batch_norm = true});
  const auto loss = [&](const Batch& batch) {
    const std::size_t first = world().rank() == 1 ? 1 : 0;
    return sum(model[1 - first](model[first](batch.x)));
  };
  EXPECT_TRUE(
      throws<StateError>([&] { replica.backward(draw_batch(1, 4), loss); }, "different layers"));
}

TEST(SynchronisedBatchNorm, ends_with_the_replica) {
  nn::Sequential model = make_norm_model();
  { const DataParallel replica(model, world(), {.synchronise_batch_norm = true}); }
  // By itself, or it would wait for the others.
  if (world().rank() == 0) loss_of(model)(draw_batch(1, 4)).backward();
}

TEST(SynchronisedBatchNorm, ends_where_another_replica_is_assigned) {
  nn::Sequential model = make_norm_model(), other = make_norm_model();
  DataParallel replica(model, world(), {.synchronise_batch_norm = true});
  replica = DataParallel(other, world(), {.synchronise_batch_norm = true});
  if (world().rank() == 0) loss_of(model)(draw_batch(1, 4)).backward();
  replica.backward(draw_batch(1, 4), loss_of(other));
}

TEST(SynchronisedBatchNorm, a_backward_after_the_replica_is_an_error) {
  nn::Sequential model = make_norm_model();
  std::optional<DataParallel> replica(std::in_place, model, world(),
                                      DataParallelOptions{.synchronise_batch_norm = true});
  const Variable loss = loss_of(model)(draw_batch(1, 4));
  replica.reset();
  EXPECT_TRUE(throws<StateError>([&] { loss.backward(); }, "DataParallel that has gone"));
}

}  // namespace replica_buffers_test
}  // namespace lockstep
