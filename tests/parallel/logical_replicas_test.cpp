// Training gives the same bits on any number of ranks and nodes, and on what a run is resumed on.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "comm/placements.hpp"
#include "lockstep/autograd/losses.hpp"
#include "lockstep/autograd/operations.hpp"
#include "lockstep/checkpoint/checkpoint.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/data/data_loader.hpp"
#include "lockstep/nn/layers.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/parallel/data_parallel.hpp"
#include "lockstep/tensor/random.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace logical_replicas_test {

using testing::Arrangement;
using testing::arrangements;
using testing::throws;
using testing::world;

constexpr std::int64_t samples = 61;  // the last global batch of 17 has 10, in 8 parts of 1 or 2

data::TensorDataset make_dataset() {
  Tensor inputs = Tensor::empty({samples, 6}), targets = Tensor::empty({samples, 3});
  fill_uniform(inputs, RandomKey(1), -1, 1);
  fill_uniform(targets, RandomKey(2), -1, 1);
  return {inputs, targets};
}

nn::Sequential make_model() {
  nn::Sequential model{nn::Linear(6, 20), nn::Tanh(),       nn::Dropout(0.3), nn::Linear(20, 30),
                       nn::ReLU(),        nn::Dropout(0.5), nn::Linear(30, 3)};
  model.initialize(3);
  return model;
}

// A run that can be stopped and resumed.
struct Training {
  Training(const Communicator& ranks, std::int64_t logical_replicas,
           std::size_t bucket_bytes = 1 << 20, std::int64_t batch = 17)
      : loader(dataset, data::DistributedSampler(samples, batch, ranks.rank(), ranks.size(),
                                                 {.logical_replicas = logical_replicas})),
        replica(model, ranks, {.bucket_bytes = bucket_bytes, .logical_replicas = logical_replicas}),
        optimizer(model.named_parameters(), optim::Adam({.lr = 0.01})) {}

  void epochs(std::int64_t count, std::optional<std::int64_t> most_steps = std::nullopt) {
    while (loader.epoch() < count) {
      for (const data::Batch& batch : loader) {
        optimizer.zero_grad();
        replica.backward(batch, [this](const data::Batch& part) {
          return mean_squared_error(model(part.inputs), part.targets);
        });
        optimizer.step();
        if (most_steps && --*most_steps == 0) return;
      }
    }
  }

  std::vector<checkpoint::Item> state() {
    return {{"model", model}, {"optimizer", optimizer}, {"loader", loader}};
  }

  data::TensorDataset dataset = make_dataset();
  nn::Sequential model = make_model();
  data::DataLoader loader;
  DataParallel replica;
  NamedOptimizer optimizer;
};

// What one process by itself comes to, computed on every rank.
StateDict trained_alone(std::int64_t logical_replicas, std::int64_t batch = 17) {
  const Communicator self(MPI_COMM_SELF);
  Training run(self, logical_replicas, 1 << 20, batch);
  run.epochs(2);
  return run.model.state_dict().clone();
}

TEST(LogicalReplicas, give_the_same_bits_on_any_ranks_and_nodes) {
  for (const std::int64_t logical_replicas : {4, 8, 32}) {
    const StateDict alone = trained_alone(logical_replicas);
    for (const Arrangement& arrangement : arrangements()) {
      const Communicator ranks(world().handle(), arrangement.options);
      for (const std::size_t bucket_bytes : {1U, 700U, 1U << 20}) {
        Training run(ranks, logical_replicas, bucket_bytes);
        run.epochs(2);
        EXPECT_TRUE(bit_equal(run.model.state_dict(), alone))
            << arrangement.name << ", " << logical_replicas << " logical replicas, buckets of "
            << bucket_bytes;
      }
    }
  }
}

// Also where ranks have other numbers of them.
TEST(LogicalReplicas, share_memory_as_replicas_without_them_do) {
  nn::Linear plain(200, 100), model(200, 100);
  const bool shared = DataParallel(plain, world()).reducer().shared();
  for (const std::int64_t count : {4, 8, 16, 32}) {
    EXPECT_EQ(DataParallel(model, world(), {.logical_replicas = count}).reducer().shared(), shared)
        << count;
  }
}

TEST(LogicalReplicas, may_have_no_samples) {
  // Global batches of 3 and 1 in 8 parts.
  const StateDict alone = trained_alone(8, 3);
  for (const Arrangement& arrangement : arrangements()) {
    const Communicator ranks(world().handle(), arrangement.options);
    Training run(ranks, 8, 500, 3);
    run.epochs(2);
    EXPECT_TRUE(bit_equal(run.model.state_dict(), alone)) << arrangement.name;
  }
}

TEST(LogicalReplicas, are_close_to_training_without_them) {
  // Without dropout, whose numbers belong to the ranks there.
  const auto trained = [](std::int64_t logical_replicas) {
    nn::Sequential model{nn::Linear(6, 20), nn::Tanh(), nn::Linear(20, 3)};
    model.initialize(4);
    const data::TensorDataset dataset = make_dataset();
    data::DataLoader loader(dataset,
                            data::DistributedSampler(samples, 17, world().rank(), world().size(),
                                                     {.logical_replicas = logical_replicas}));
    DataParallel replica(model, world(), {.logical_replicas = logical_replicas});
    NamedOptimizer optimizer(model.named_parameters(), optim::Adam({.lr = 0.01}));
    for (const data::Batch& batch : loader) {
      optimizer.zero_grad();
      replica.backward(batch, [&](const data::Batch& part) {
        return mean_squared_error(model(part.inputs), part.targets);
      });
      optimizer.step();
    }
    return model.state_dict().clone();
  };
  const StateDict with = trained(4), without = trained(0);
  for (const auto& [name, value] : without) {
    const Tensor &a = value.as_tensor(), &b = with.at(name).as_tensor();
    for (std::int64_t i = 0; i < a.size(); ++i) {
      EXPECT_NEAR(a.data<float>()[i], b.data<float>()[i], 2e-5) << name;
    }
  }
}

TEST(LogicalReplicas, add_to_the_gradients_of_before_where_some_parts_reach_nothing) {
  struct Rows {
    std::int64_t begin, end;
    std::int64_t size() const { return end - begin; }
    Rows slice(std::int64_t from, std::int64_t to) const { return {begin + from, begin + to}; }
  };
  struct Model : nn::Module {
    Parameter always{Tensor::zeros({3})}, by_odd_rows{Tensor::zeros({5})},
        never{Tensor::zeros({2})}, frozen{Tensor::zeros({4})};
    void visit(nn::Visitor& visitor) override {
      visitor("always", always);
      visitor("by_odd_rows", by_odd_rows);
      visitor("never", never);
      visitor("frozen", frozen);
    }
    Variable forward(const Variable& x) override { return x; }
  } model;
  DataParallel replica(model, world(), {.logical_replicas = 8});
  EXPECT_TRUE(throws<StateError>([&] { replica.reducer().mark_ready(model.always); },
                                 "computed by DataParallel::backward"));
  for (Parameter parameter : model.parameters()) parameter.mutable_grad().fill(5);
  model.frozen.set_requires_grad(false);
  const int rank = world().rank(), ranks = world().size();
  for (const int step : {1, 2}) {
    replica.backward(Rows{8 * rank / ranks, 8 * (rank + 1) / ranks}, [&](const Rows& part) {
      const Variable loss = sum(model.always);
      return part.begin % 2 == 0 ? loss : loss + sum(model.by_odd_rows);
    });
    EXPECT_EQ(model.always.grad().data<float>()[0], 5 + step);
    EXPECT_EQ(model.by_odd_rows.grad().data<float>()[0], 5 + 0.5 * step);
    EXPECT_EQ(model.never.grad().data<float>()[0], 5);
    EXPECT_EQ(model.frozen.grad().data<float>()[0], 5);
  }
}

TEST(LogicalReplicas, draw_dropout_by_part_and_anew_in_each_step) {
  // The masks that each part of the global batch sees, by the sample that has the number i.
  const auto masks = [](const Communicator& ranks) {
    nn::Sequential model{nn::Linear(1, 1), nn::Dropout(0.5)};
    DataParallel replica(model, ranks, {.logical_replicas = 4});
    const std::int64_t begin = 8 * (4 * ranks.rank() / ranks.size()) / 4,
                       end = 8 * (4 * (ranks.rank() + 1) / ranks.size()) / 4;
    std::vector<float> seen(16);
    for (std::size_t step = 0; step < 2; ++step) {
      Tensor inputs = Tensor::empty({end - begin, 1});
      for (std::int64_t i = begin; i < end; ++i) {
        inputs.data<float>()[i - begin] = static_cast<float>(i);
      }
      replica.backward(data::Batch{inputs, inputs}, [&](const data::Batch& part) {
        const Variable ones(Tensor::full({part.size(), 1}, 1));
        const Variable mask = model[1](ones);
        for (std::int64_t k = 0; k < part.size(); ++k) {
          const auto i = static_cast<std::size_t>(part.inputs.data<float>()[k]);
          seen[8 * step + i] = mask.value().data<float>()[k];
        }
        return mean(model(part.inputs));
      });
    }
    ranks.all_reduce(std::span(seen));
    return seen;
  };
  const Communicator self(MPI_COMM_SELF);
  const std::vector<float> alone = masks(self), together = masks(world());
  EXPECT_EQ(alone, together);
  EXPECT_NE(std::vector<float>(alone.begin(), alone.begin() + 8),
            std::vector<float>(alone.begin() + 8, alone.end()));
}

TEST(LogicalReplicas, go_on_with_the_same_bits_where_a_run_is_resumed_on_other_ranks) {
  const StateDict alone = trained_alone(8);
  std::string folder = (std::filesystem::temp_directory_path() / "lockstep-XXXXXX").string();
  if (world().rank() == 0) {
    ASSERT_NE(mkdtemp(folder.data()), nullptr);
  }
  world().broadcast(folder);
  const auto path = std::filesystem::path(folder) / "checkpoint.lockstep";
  const Communicator self(MPI_COMM_SELF);
  {
    // Stopped inside an epoch.
    Training run(world(), 8);
    run.epochs(2, 5);
    checkpoint::save(path, world(), run.state());
  }
  world().barrier();
  Training resumed(self, 8);
  checkpoint::load(path, self, resumed.state());
  resumed.epochs(2);
  EXPECT_TRUE(bit_equal(resumed.model.state_dict(), alone));
  world().barrier();
  if (world().rank() == 0) {
    Training run(self, 8);
    run.epochs(2, 6);
    checkpoint::save(path, self, run.state());
  }
  world().barrier();
  Training together(world(), 8, 300);
  checkpoint::load(path, world(), together.state());
  together.epochs(2);
  EXPECT_TRUE(bit_equal(together.model.state_dict(), alone));
  world().barrier();
  if (world().rank() == 0) std::filesystem::remove_all(folder);
}

TEST(LogicalReplicas, refuse_numbers_that_make_no_tree) {
  for (const std::int64_t number : {3, -1, -4, 6}) {
    nn::Sequential model = make_model();
    EXPECT_TRUE(throws<OptionError>(
        [&] { const DataParallel replica(model, world(), {.logical_replicas = number}); },
        "power of two", "found " + std::to_string(number)));
    EXPECT_TRUE(throws<OptionError>(
        [&] { data::DistributedSampler(samples, 10, 0, 1, {.logical_replicas = number}); },
        "power of two", "found " + std::to_string(number)));
  }
  if (world().size() == 1) return;
  nn::Sequential model = make_model();
  EXPECT_TRUE(throws<OptionError>(
      [&] { const DataParallel replica(model, world(), {.logical_replicas = 1}); },
      "≥ " + std::to_string(world().size()) + " ranks"));
}

TEST(LogicalReplicas, refuse_batches_that_are_cut_otherwise) {
  nn::Sequential model = make_model();
  DataParallel replica(model, world(), {.logical_replicas = 4});
  const data::TensorDataset dataset = make_dataset();
  const auto loss = [&](const data::Batch& part) {
    return mean_squared_error(model(part.inputs), part.targets);
  };
  const auto batch_of = [&](std::int64_t size) {
    std::vector<std::int64_t> indices;
    for (std::int64_t i = 0; i < size; ++i) indices.push_back(i);
    return dataset.batch(indices);
  };
  EXPECT_TRUE(
      throws<OptionError>([&] { replica.backward(batch_of(8), loss, {.parts = 2}); }, "parts = 1"));
  for (const Parameter& parameter : model.parameters()) EXPECT_FALSE(parameter.has_grad());
  EXPECT_TRUE(throws<StateError>([&] { loss(batch_of(2)).backward(); }, "DataParallel::backward"));
  if (world().size() == 1) return;
  const auto unlike = [&] {
    replica.backward(batch_of(8), loss, {.parts = world().rank() == 0 ? 2 : 1});
  };
  EXPECT_TRUE(throws<OptionError>(unlike, "parts = 1", "(rank 0)"));
  // All samples on rank 0.
  const auto uneven = [&] { replica.backward(batch_of(world().rank() == 0 ? 8 : 0), loss); };
  EXPECT_TRUE(throws<StateError>(uneven, "logical replicas", "of a global batch of 8"));
  for (const Parameter& parameter : model.parameters()) EXPECT_FALSE(parameter.has_grad());
}

}  // namespace logical_replicas_test
}  // namespace lockstep
