#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/nn/batch_norm.hpp"
#include "lockstep/nn/layers.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/gradient_check.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep::nn {
namespace batch_norm_reducer_test {

using testing::expect_near;
using testing::throws;
using testing::uniform;
using testing::world;

using Sizes = std::vector<std::size_t>;

struct WorldReducer : StatisticsReducer {
  double own_weight = 1;
  Sizes sizes;  // of the sums so far

  void sum(std::span<double> numbers) override {
    sizes.push_back(numbers.size());
    world().all_reduce(numbers);
  }
  double weight() const override { return own_weight; }
};

// The ranks' samples of a batch of 7: uneven, and on several ranks one has none.
std::vector<std::int64_t> samples_of_ranks() {
  const std::vector<std::vector<std::int64_t>> samples{{7}, {7, 0}, {2, 0, 5}, {3, 0, 1, 3}};
  return samples[static_cast<std::size_t>(world().size()) - 1];
}

struct Rows {
  std::int64_t begin = 0, end = 0;
};

Rows own_rows() {
  const auto samples = samples_of_ranks();
  Rows rows;
  for (int rank = 0; rank <= world().rank(); ++rank) {
    rows.begin = rows.end;
    rows.end += samples[static_cast<std::size_t>(rank)];
  }
  return rows;
}

// Two that normalise, so that the gradient of the second goes through the first.
Sequential make_model() {
  Sequential model{Conv2d(2, 3, 2, {.dtype = DType::f64}),
                   BatchNorm(3, {.dtype = DType::f64}),
                   ReLU(),
                   Flatten(),
                   Linear(12, 4, {.dtype = DType::f64}),
                   BatchNorm(4, {.dtype = DType::f64})};
  model.initialize(3);
  for (const std::size_t index : {1U, 5U}) {
    Parameter& weight = model.at<BatchNorm>(index).weight;
    weight.mutable_value().copy_from(uniform(weight.shape(), index, 0.5, 2));
  }
  return model;
}

const Shape batch_shape{7, 2, 3, 3};

// Σ share[row] · y² · c over all rows, with a c for each element.
Variable loss_of(const Variable& y, const std::vector<double>& shares, Rows rows) {
  Tensor factors = uniform({7, 4}, 9, 0.5, 1.5).rows(rows.begin, rows.end).clone();
  for (std::int64_t i = 0; i < factors.size(); ++i) {
    factors.data<double>()[i] *= shares[static_cast<std::size_t>(rows.begin + i / 4)];
  }
  return sum(y * y * Variable(factors));
}

// A step of replicas whose losses are means over their samples, of these weights, is that of one
// replica with the whole batch and their weighted mean as loss.
void expect_step_of_the_whole_batch(const std::vector<double>& weights) {
  const auto samples = samples_of_ranks();
  double total = 0;
  for (const double weight : weights) total += weight;
  std::vector<double> means, global;  // each row's share in its rank's loss, and in that of all
  for (std::size_t rank = 0; rank < samples.size(); ++rank) {
    const double mean = 1 / static_cast<double>(std::max<std::int64_t>(samples[rank], 1));
    means.insert(means.end(), static_cast<std::size_t>(samples[rank]), mean);
    global.insert(global.end(), static_cast<std::size_t>(samples[rank]),
                  mean * weights[rank] / total);
  }

  Sequential whole = make_model(), replica = make_model();
  const Tensor batch = uniform(batch_shape, 1);
  const Variable all(batch, true);
  const Variable expected = whole(all);
  loss_of(expected, global, {0, 7}).backward();

  const auto reducer = std::make_shared<WorldReducer>();
  for (const std::size_t index : {1U, 5U}) {
    replica.at<BatchNorm>(index).set_statistics_reducer(reducer);
  }
  const Rows rows = own_rows();
  const Variable x(batch.rows(rows.begin, rows.end), true);
  const Variable y = replica(x);
  const double weight = weights[static_cast<std::size_t>(world().rank())];
  reducer->own_weight = weight;  // not before the backward
  loss_of(y, means, rows).backward();
  EXPECT_EQ(reducer->sizes, (Sizes{4, 3, 5, 4, 8, 6}));

  expect_near(y.value(), expected.value().rows(rows.begin, rows.end), 1e-13, "value");
  expect_near((Variable(x.grad()) * (weight / total)).value(),
              all.grad().rows(rows.begin, rows.end), 1e-13, "gradient of x");
  for (std::size_t i = 0; i < whole.parameters().size(); ++i) {
    Tensor mean = replica.parameters()[i].grad().clone();
    for (double& value : mean.span<double>()) value *= weight / total;
    world().all_reduce(mean.span<double>());
    expect_near(mean, whole.parameters()[i].grad(), 1e-13,
                whole.named_parameters()[i].name.c_str());
  }
  for (std::size_t i = 0; i < whole.named_buffers().size(); ++i) {
    const auto [name, buffer] = whole.named_buffers()[i];
    expect_near(replica.named_buffers()[i].second, buffer, 1e-14, name.c_str());
  }
}

TEST(StatisticsReducer, makes_a_step_that_of_the_whole_batch) {
  std::vector<double> weights;
  for (const std::int64_t samples : samples_of_ranks()) {
    weights.push_back(static_cast<double>(samples));
  }
  expect_step_of_the_whole_batch(weights);
}

TEST(StatisticsReducer, makes_a_step_that_of_the_mean_of_losses_of_any_weights) {
  expect_step_of_the_whole_batch(std::vector<double>(samples_of_ranks().size(), 1));
  std::vector<double> weights{0.5, 3, 0.25, 2};
  weights.resize(samples_of_ranks().size());
  expect_step_of_the_whole_batch(weights);
}

TEST(StatisticsReducer, leaves_the_same_running_statistics_on_all_ranks) {
  BatchNorm layer(3);
  layer.set_statistics_reducer(std::make_shared<WorldReducer>());
  const Rows rows = own_rows();
  layer(uniform({7, 3}, 1, -1, 1, DType::f32).rows(rows.begin, rows.end));
  for (auto& [name, buffer] : layer.named_buffers()) {
    Tensor root = buffer.clone();
    world().broadcast_bytes(root.raw(), root.bytes());
    EXPECT_TRUE(bit_equal(buffer, root)) << name;
  }
}

TEST(StatisticsReducer, counts_nothing_of_a_replica_without_weight) {
  BatchNorm layer(2, {.dtype = DType::f64}), whole(2, {.dtype = DType::f64});
  const auto reducer = std::make_shared<WorldReducer>();
  layer.set_statistics_reducer(reducer);
  reducer->own_weight = world().rank() == 0 ? 0 : 1;
  const std::int64_t ranks = world().size();
  const Tensor batch = uniform({3 * ranks, 2}, 1);
  Tensor factors = uniform({3 * ranks, 2}, 2);
  const std::int64_t first = 3 * world().rank();
  const Variable x(batch.rows(first, first + 3), true), all(batch, true);
  sum(layer(x) * factors.rows(first, first + 3).clone()).backward();
  factors.rows(0, 3).fill(0);
  sum(whole(all) * factors).backward();
  if (world().rank() > 0) {
    expect_near(x.grad(), all.grad().rows(first, first + 3), 1e-14, "gradient of x");
  }
  for (const double value : x.grad().span<double>()) EXPECT_TRUE(std::isfinite(value));
}

TEST(StatisticsReducer, sums_in_training_alone) {
  BatchNorm layer(3), untracked(3, {.track_running_stats = false});
  const auto reducer = std::make_shared<WorldReducer>();
  layer.set_statistics_reducer(reducer);
  untracked.set_statistics_reducer(reducer);
  const Tensor x = uniform({world().rank() == 0 ? 4 : 0, 3}, 1, -1, 1, DType::f32);
  {
    const NoGrad guard;
    layer(x);
  }
  EXPECT_EQ(reducer->sizes, (Sizes{4, 3}));
  reducer->sizes.clear();
  layer.eval();
  sum(layer(x)).backward();
  untracked.eval();
  untracked(uniform({2, 3}, 1, -1, 1, DType::f32));
  EXPECT_EQ(reducer->sizes, Sizes{});
  layer.train();
  layer.set_statistics_reducer(nullptr);
  layer(uniform({2, 3}, 1, -1, 1, DType::f32));
  EXPECT_EQ(reducer->sizes, Sizes{});
}

TEST(StatisticsReducer, of_less_than_two_numbers_is_an_error_on_all_ranks) {
  BatchNorm layer(3);
  layer.set_statistics_reducer(std::make_shared<WorldReducer>());
  const StateDict before = layer.state_dict().clone();
  const std::int64_t samples = world().rank() == 0 ? 1 : 0;
  EXPECT_TRUE(throws<StateError>(
      [&] {
        layer(Tensor::zeros({samples, 3}));
      },
      "more than 1 value per channel", "found 1"));
  EXPECT_TRUE(throws<StateError>([&] { layer(Tensor::zeros({0, 3})); }, "found 0"));
  EXPECT_TRUE(bit_equal(layer.state_dict(), before));
  if (world().size() > 1) {
    EXPECT_NO_THROW(layer(Tensor::zeros({1, 3})));
  }
}

}  // namespace batch_norm_reducer_test
}  // namespace lockstep::nn
