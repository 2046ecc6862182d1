#include "lockstep/parallel/data_parallel.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "lockstep/autograd/losses.hpp"
#include "lockstep/autograd/operations.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/nn/layers.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/tensor/random.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace data_parallel_test {

using testing::throws;
using testing::world;

bool last_rank() { return world().rank() == world().size() - 1; }

template <class T>
nn::Sequential make_model(std::uint64_t seed) {
  const nn::LinearOptions options{.dtype = dtype_of<T>};
  nn::Sequential model{nn::Linear(4, 8, options), nn::Tanh(), nn::Linear(8, 2, options)};
  model.initialize(seed);
  return model;
}

Tensor drawn(std::uint64_t key, const Shape& shape, DType dtype) {
  Tensor tensor = Tensor::empty(shape, dtype);
  fill_uniform(tensor, RandomKey(key), -1, 1);
  return tensor;
}

struct Batch {
  Tensor x, y;

  std::int64_t size() const { return x.shape()[0]; }
  Batch slice(std::int64_t begin, std::int64_t end) const {
    return {x.rows(begin, end), y.rows(begin, end)};
  }
};

// The rows of a global batch of 12 that a rank has.
template <class T>
Batch global_batch(std::uint64_t key) {
  return {drawn(key, {12, 4}, dtype_of<T>), drawn(key + 1, {12, 2}, dtype_of<T>)};
}

// Unequal: the last of several ranks has none.
Batch uneven_part(const Batch& global) {
  const std::int64_t ranks = world().size(), rank = world().rank();
  if (ranks == 1) return global;
  const std::int64_t parts = ranks * (ranks - 1) / 2;
  const auto bound = [&](std::int64_t r) {
    return r == 0 ? 0 : r >= ranks - 1 ? 12 : 12 * r * (r + 1) / 2 / parts;
  };
  return global.slice(bound(rank), bound(rank + 1));
}

Batch even_part(const Batch& global) {
  const std::int64_t rows = 12 / world().size();
  return global.slice(world().rank() * rows, (world().rank() + 1) * rows);
}

template <class T>
void expect_close(const Tensor& found, const Tensor& expected, const std::string& name) {
  ASSERT_EQ(found.shape(), expected.shape()) << name;
  double largest = 0, error = 0;
  for (std::int64_t i = 0; i < found.size(); ++i) {
    const auto a = static_cast<double>(found.data<T>()[i]);
    const auto b = static_cast<double>(expected.data<T>()[i]);
    largest = std::max(largest, std::abs(b));
    error = std::max(error, std::abs(a - b));
  }
  EXPECT_LE(error, (dtype_of<T> == DType::f32 ? 1e-6 : 1e-12) * largest) << name;
}

void expect_same_on_all_ranks(const nn::Module& model) {
  for (const auto& [name, value] : model.state_dict()) {
    if (!std::holds_alternative<Tensor>(value.variant())) {
      for (const auto& [key, number] : value.as_dict()) {
        const std::int64_t largest = world().all_reduce(number.as_int(), ReduceOp::max);
        EXPECT_EQ(number.as_int(), largest) << name << "." << key;
      }
      continue;
    }
    Tensor first = value.as_tensor().clone();
    world().broadcast_bytes(first.raw(), first.bytes());
    EXPECT_TRUE(bit_equal(first, value.as_tensor())) << name;
  }
}

template <class T>
class DataParallelTest : public ::testing::Test {};
using Floating = ::testing::Types<float, double>;
TYPED_TEST_SUITE(DataParallelTest, Floating);

TYPED_TEST(DataParallelTest, starts_from_the_values_of_rank_0) {
  nn::Sequential model = make_model<TypeParam>(static_cast<std::uint64_t>(world().rank()));
  const DataParallel replica(model, world());
  EXPECT_TRUE(bit_equal(model.state_dict(), make_model<TypeParam>(0).state_dict()));
  EXPECT_EQ(&replica.model(), &model);
}

TYPED_TEST(DataParallelTest, trains_as_one_process_does_on_the_batches_of_all_ranks) {
  nn::Sequential model = make_model<TypeParam>(static_cast<std::uint64_t>(world().rank()));
  nn::Sequential serial = make_model<TypeParam>(0);
  const DataParallel replica(model, world());
  NamedOptimizer optimizer(model.named_parameters(), optim::SGD({.lr = 0.1, .momentum = 0.9}));
  NamedOptimizer reference(serial.named_parameters(), optim::SGD({.lr = 0.1, .momentum = 0.9}));
  for (std::uint64_t step = 0; step < 5; ++step) {
    const Batch global = global_batch<TypeParam>(10 * step), own = even_part(global);
    optimizer.zero_grad();
    mean_squared_error(replica(own.x), own.y).backward();
    optimizer.step();
    reference.zero_grad();
    mean_squared_error(serial(global.x), global.y).backward();
    reference.step();
  }
  for (const auto& [name, value] : serial.state_dict()) {
    expect_close<TypeParam>(model.state_dict().at(name).as_tensor(), value.as_tensor(), name);
  }
  expect_same_on_all_ranks(model);
}

TYPED_TEST(DataParallelTest, uneven_batches_in_parts_give_the_mean_over_all_samples) {
  const auto loss_with = [](nn::Module& model) {
    return [&model](const Batch& part) { return mean_squared_error(model(part.x), part.y); };
  };
  for (const std::int64_t parts : {1, 2, 3, 20}) {
    nn::Sequential model = make_model<TypeParam>(1), serial = make_model<TypeParam>(1);
    DataParallel replica(model, world());
    // A second backward adds to the first.
    for (const std::uint64_t key : {50U, 60U}) {
      const Batch global = global_batch<TypeParam>(key), own = uneven_part(global);
      const double found = replica.backward(own, loss_with(model), {.parts = parts});
      loss_with(serial)(global).backward();
      if (own.size() == 0) {
        EXPECT_EQ(found, 0);
      } else {
        EXPECT_NEAR(found, loss_with(serial)(own).value().item(), 1e-6);
      }
    }
    const std::vector<NamedParameter> averaged = model.named_parameters();
    for (std::size_t i = 0; i < averaged.size(); ++i) {
      expect_close<TypeParam>(averaged[i].parameter.grad(), serial.parameters()[i].grad(),
                              averaged[i].name + " in parts: " + std::to_string(parts));
    }
  }
}

TEST(DataParallel, gives_replicas_that_stay_equal_to_the_bit) {
  nn::Sequential model = make_model<float>(static_cast<std::uint64_t>(world().rank()));
  DataParallel replica(model, world());
  NamedOptimizer optimizer(model.named_parameters(), optim::AdamW({.lr = 0.05}));
  for (std::uint64_t step = 0; step < 10; ++step) {
    optimizer.zero_grad();
    replica.backward(uneven_part(global_batch<float>(10 * step)),
                     [&](const Batch& part) { return mean_squared_error(model(part.x), part.y); },
                     {.parts = 2});
    optimizer.step();
    expect_same_on_all_ranks(model);
  }
}

TEST(DataParallel, a_loss_that_throws_leaves_no_half_gradients) {
  nn::Sequential model = make_model<float>(1);
  DataParallel replica(model, world());
  const Batch own = even_part(global_batch<float>(70));
  const auto good = [&](const Batch& part) { return mean_squared_error(model(part.x), part.y); };
  replica.backward(own, good);
  std::vector<Tensor> before;
  for (const Parameter& parameter : model.parameters()) before.push_back(parameter.grad().clone());
  const auto expect_unchanged = [&] {
    for (std::size_t i = 0; i < before.size(); ++i) {
      EXPECT_TRUE(bit_equal(before[i], model.parameters()[i].grad())) << i;
    }
  };
  int calls = 0;
  const auto bad = [&](const Batch& part) {
    if (++calls == 2) throw std::runtime_error("bad sample");
    return good(part);
  };
  EXPECT_TRUE(
      throws<Error>([&] { replica.backward(own, bad, {.parts = 3}); }, "bad sample (rank 0)"));
  expect_unchanged();
  EXPECT_TRUE(throws<OptionError>([&] { replica.backward(own, good, {.parts = 0}); },
                                  "expected at least one part, found 0"));
  expect_unchanged();

  // The next ones are reduced again.
  model.zero_grad();
  replica.backward(own, good);
  for (std::size_t i = 0; i < before.size(); ++i) {
    EXPECT_TRUE(bit_equal(before[i], model.parameters()[i].grad())) << i;
  }
}

TEST(DataParallel, built_after_or_before_the_optimizer_gives_the_same_bits) {
  const auto trained = [](bool before) {
    nn::Sequential model = make_model<float>(1);
    std::unique_ptr<DataParallel> replica;
    if (before) replica = std::make_unique<DataParallel>(model, world());
    NamedOptimizer optimizer(model.named_parameters(), optim::Adam());
    if (!before) replica = std::make_unique<DataParallel>(model, world());
    for (std::uint64_t step = 0; step < 4; ++step) {
      const Batch own = even_part(global_batch<float>(10 * step));
      optimizer.zero_grad();
      mean_squared_error((*replica)(own.x), own.y).backward();
      optimizer.step();
    }
    return model.state_dict().clone();
  };
  EXPECT_TRUE(bit_equal(trained(true), trained(false)));
}

struct WithBuffer : nn::Module {
  explicit WithBuffer(const Tensor& buffer) : counts(buffer) {}
  void visit(nn::Visitor& visitor) override {
    visitor("linear", linear);
    visitor("counts", counts);
  }
  Variable forward(const Variable& x) override { return linear(x); }

  nn::Linear linear{4, 2};
  Tensor counts;
};

TEST(DataParallel, copies_buffers_from_rank_0) {
  WithBuffer model(Tensor::from(std::vector<std::int64_t>{world().rank() + 5, 7}, {2}));
  const DataParallel replica(model, world());
  EXPECT_EQ(model.counts.data<std::int64_t>()[0], 5);
  expect_same_on_all_ranks(model);
}

// That a model which differs on the last rank is refused on all, and left as it was.
template <class E, class... Parts>
void expect_refused(nn::Module& model, const Parts&... parts) {
  const StateDict before = model.state_dict().clone();
  EXPECT_TRUE(throws<E>([&] { const DataParallel replica(model, world()); }, parts...));
  EXPECT_TRUE(bit_equal(before, model.state_dict()));
  for (const Parameter& parameter : model.parameters()) {
    EXPECT_EQ(parameter.gradient_owner(), nullptr);
  }
  nn::Sequential next = make_model<float>(static_cast<std::uint64_t>(world().rank()));
  const DataParallel replica(next, world());
  expect_same_on_all_ranks(next);
}

TEST(DataParallel, refuses_models_that_differ) {
  if (world().size() == 1) return;  // one rank cannot differ from itself
  const std::string last = "on rank " + std::to_string(world().size() - 1);
  WithBuffer shape(Tensor::zeros({last_rank() ? 3 : 2}));
  expect_refused<ShapeError>(shape, "'counts' f32 (2) on rank 0", "'counts' f32 (3) " + last);
  WithBuffer dtype(Tensor::zeros({2}, last_rank() ? DType::f64 : DType::f32));
  expect_refused<DTypeError>(dtype, "'counts' f32 (2) on rank 0", "'counts' f64 (2) " + last);
  WithBuffer absent(last_rank() ? Tensor() : Tensor::zeros({2}));
  expect_refused<NameError>(absent, "'counts' f32 (2) on rank 0", "missing " + last);

  nn::Sequential width{nn::Linear(4, last_rank() ? 3 : 2)};
  expect_refused<ShapeError>(width, "'0.weight' f32 (2, 4) on rank 0", "(3, 4) " + last);
  nn::Sequential depth{nn::Linear(4, 2)};
  if (last_rank()) depth.append(nn::Linear(2, 2));
  expect_refused<NameError>(depth, "missing on rank 0", "'1.weight' f32 (2, 2) " + last);
  // No parameters, but random state that rank 0 does not have.
  nn::Sequential random{nn::Linear(4, 2)};
  if (last_rank()) random.append(nn::Dropout(0.5));
  expect_refused<NameError>(random, "missing on rank 0", "'1.random' ", last);
}

TEST(DataParallel, ranks_draw_different_masks_from_equal_state) {
  nn::Sequential model{nn::Linear(4, 8), nn::Dropout(0.5)};
  model.initialize(static_cast<std::uint64_t>(world().rank()));
  const DataParallel replica(model, world());
  expect_same_on_all_ranks(model);
  const Variable x(Tensor::full({16, 8}, 1));
  Tensor mask = model[1](x).value().clone();
  Tensor first = mask.clone();
  world().broadcast(first.span<float>());
  EXPECT_EQ(bit_equal(mask, first), world().rank() == 0);
  EXPECT_FALSE(bit_equal(model[1](x).value(), mask));
  expect_same_on_all_ranks(model);
}

TEST(DataParallel, keeps_random_state_equal_when_batches_are_uneven) {
  nn::Sequential model{nn::Linear(4, 8), nn::Dropout(0.5), nn::Linear(8, 2)};
  DataParallel replica(model, world());
  for (const std::int64_t parts : {1, 5}) {
    replica.backward(uneven_part(global_batch<float>(80)),
                     [&](const Batch& part) { return mean_squared_error(model(part.x), part.y); },
                     {.parts = parts});
    expect_same_on_all_ranks(model);
  }
}

}  // namespace data_parallel_test
}  // namespace lockstep
