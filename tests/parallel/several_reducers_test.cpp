// Several models, reducers and optimizers on one communicator: against one process that has the
// samples of all ranks, and no reducer.

#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "comm/placements.hpp"
#include "lockstep/autograd/activations.hpp"
#include "lockstep/autograd/losses.hpp"
#include "lockstep/autograd/operations.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/nn/batch_norm.hpp"
#include "lockstep/nn/layers.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/parallel/data_parallel.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "parallel/batches.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace several_reducers_test {

using namespace testing;

const optim::SGD momentum({.lr = 0.1, .momentum = 0.9});

/// A batch of all ranks, in which none is without rows, and the rows of this one.
struct Rows {
  explicit Rows(std::uint64_t key) {
    std::vector<std::int64_t> counts;
    for (int rank = 0; rank < world().size(); ++rank) counts.push_back(2 + rank);
    all = draw_batch(key, total(counts));
    own = rows_of(all, counts, world().rank());
  }

  Batch all, own;
};

/// A model that the ranks train together, and its equal that this process trains by itself.
struct Pair {
  Pair(std::uint64_t seed, const Communicator& ranks, const optim::UpdateRule& rule = momentum,
       const DataParallelOptions& options = {})
      : model(make_model(seed)),
        serial(make_model(seed)),
        replica(model, ranks, options),
        optimizer(model.named_parameters(), rule),
        reference(serial.named_parameters(), rule) {}

  void zero_grad() {
    optimizer.zero_grad();
    reference.zero_grad();
  }
  void step() {
    optimizer.step();
    reference.step();
  }
  void backward(std::uint64_t key) {
    const Batch batch = draw_batch(key, total(uneven_rows()));
    replica.backward(rows_of(batch, uneven_rows(), world().rank()), loss_of(model));
    loss_of(serial)(batch).backward();
  }
  void train(std::uint64_t key) {
    zero_grad();
    backward(key);
    step();
  }
  /// What plain backwards are weighted with.
  void set_weight(const Rows& rows) {
    replica.reducer().set_weight(static_cast<double>(rows.own.size()));
  }
  void set_requires_grad(bool requires_grad) {
    model.set_requires_grad(requires_grad);
    serial.set_requires_grad(requires_grad);
  }
  bool has_grad() const { return model.parameters().front().has_grad(); }

  nn::Sequential model, serial;
  DataParallel replica;
  NamedOptimizer optimizer, reference;
};

void expect_as_serial(const Pair& pair, const std::string& where = "") {
  SCOPED_TRACE(where);
  expect_close_states(pair.model, pair.serial);
  expect_equal_on_all_ranks(pair.model);
}

// Calls use(ranks, name) for each way to place the ranks.
template <class Use>
void for_each_arrangement(Use use) {
  for (const Arrangement& arrangement : arrangements()) {
    Communicator ranks(world().handle(), arrangement.options);
    use(ranks, arrangement.name);
    ranks.close();
  }
}

TEST(SeveralReducers, train_two_models_in_any_order) {
  for_each_arrangement([](const Communicator& ranks, const std::string& name) {
    Pair first(3, ranks, momentum, {.bucket_bytes = 1});
    Pair second(4, ranks, optim::Adam({.lr = 0.01}), {.missing = MissingGradients::leave_out});
    std::uint64_t key = 0;
    for (const char model : std::string("abbaaabab")) (model == 'a' ? first : second).train(++key);
    expect_as_serial(first, name);
    expect_as_serial(second, name);
  });
}

TEST(SeveralReducers, each_have_options_of_their_own) {
  Pair mean(3, world());
  nn::Sequential logical = make_model(), summed = make_model(), serial = make_model();
  DataParallel in_parts(logical, world(), {.logical_replicas = 4});
  DataParallel sum(summed, world(), {.reduction = GradientReduction::sum, .predivide = 2});
  const Batch batch = draw_batch(1, 12);
  std::vector<std::int64_t> rows;
  for (int rank = 0; rank < world().size(); ++rank) {
    const int parts = 4 * (rank + 1) / world().size() - 4 * rank / world().size();
    rows.push_back(3 * parts);
  }
  const Batch own = rows_of(batch, rows, world().rank());
  {
    const auto deferral = mean.replica.no_sync();
    mean.backward(2);
    in_parts.backward(own, loss_of(logical));
    sum.backward(own, loss_of(summed));
  }
  mean.replica.reducer().finish();
  expect_close_gradients(mean.model, mean.serial);
  loss_of(serial)(batch).backward();
  expect_close_gradients(logical, serial);
  serial.zero_grad();
  (loss_of(serial)(batch) * 12).backward();
  expect_close_gradients(summed, serial);
}

TEST(SeveralReducers, reduce_while_others_accumulate) {
  for_each_arrangement([](const Communicator& ranks, const std::string& name) {
    Pair first(3, ranks), second(4, ranks);
    auto deferral = first.replica.no_sync();
    first.backward(1);
    second.train(2);
    first.backward(3);
    second.zero_grad();
    const auto other = second.replica.no_sync();
    deferral.reset();
    second.backward(4);
    first.replica.reducer().finish();
    second.backward(5);
    second.replica.reducer().finish();
    for (Pair* pair : {&first, &second}) {
      // Two batches of the same size have counted half each.
      for (Parameter& parameter : pair->serial.parameters()) {
        double* gradient = parameter.mutable_grad().data<double>();
        for (std::int64_t i = 0; i < parameter.size(); ++i) gradient[i] /= 2;
      }
      expect_close_gradients(pair->model, pair->serial, name);
      pair->step();
      expect_as_serial(*pair, name);
    }
  });
}

TEST(SeveralReducers, reduce_while_the_reduction_of_another_is_under_way) {
  for_each_arrangement([](const Communicator& ranks, const std::string& name) {
    // In a bucket each, the first of which is reduced in several pieces.
    Parameter large("large", Tensor::zeros({50000}, DType::f64));
    Parameter small("small", Tensor::zeros({3}, DType::f64));
    GradientReducer marked({small, large}, ranks, {.bucket_bytes = 1});
    Pair pair(3, ranks);
    for (int step = 1; step <= 2; ++step) {
      const double own = step * (ranks.rank() + 1);
      large.mutable_grad().fill(own);
      marked.mark_ready(large);
      pair.train(static_cast<std::uint64_t>(step));
      EXPECT_EQ(ranks.all_reduce(1.0), ranks.size());
      small.mutable_grad().fill(-own);
      marked.mark_ready(small);
      pair.train(static_cast<std::uint64_t>(10 + step));
      marked.finish();
      const double mean = step * (ranks.size() + 1) / 2.0;
      EXPECT_TRUE(close(large.grad(), Tensor::full({50000}, mean, DType::f64))) << name;
      EXPECT_TRUE(close(small.grad(), Tensor::full({3}, -mean, DType::f64))) << name;
    }
    expect_as_serial(pair, name);
  });
}

TEST(SeveralReducers, are_reached_by_one_backward) {
  for_each_arrangement([](const Communicator& ranks, const std::string& name) {
    Pair first(3, ranks, momentum, {.bucket_bytes = 1}), second(4, ranks);
    const auto loss = [](nn::Module& a, nn::Module& b, const Batch& batch) {
      return mean_squared_error(a(batch.x) + tanh(b(batch.x)) * a(batch.x), batch.y);
    };
    for (std::uint64_t step = 0; step < 4; ++step) {
      const Rows rows(step);
      for (Pair* pair : {&first, &second}) {
        pair->zero_grad();
        pair->set_weight(rows);
      }
      {
        // Of one of them the reduction comes later.
        const auto deferral = step % 2 == 1 ? second.replica.no_sync() : nullptr;
        loss(first.model, second.model, rows.own).backward();
      }
      loss(first.serial, second.serial, rows.all).backward();
      expect_close_gradients(first.model, first.serial, name);
      first.step();
      if (step % 2 == 1) second.replica.reducer().finish();
      expect_close_gradients(second.model, second.serial, name);
      second.step();
    }
    expect_as_serial(first, name);
    expect_as_serial(second, name);
  });
}

TEST(SeveralReducers, train_a_model_that_feeds_a_frozen_one) {
  // As a generator and its critic: rows of four numbers, from the two of `generator` and noise.
  const auto fake = [](nn::Module& generator, const Batch& batch) {
    const Variable spread = Tensor::full({4, 2}, 0.5, DType::f64);
    return linear(generator(batch.x), spread, Variable());
  };
  for (const bool freezes : {true, false}) {
    Pair generator(3, world()), critic(4, world(), optim::Adam({.lr = 0.01}));
    const auto generator_loss = [&](nn::Module& of, nn::Module& by, const Batch& batch) {
      return mean_squared_error(by(fake(of, batch)), batch.y);
    };
    for (std::uint64_t step = 0; step < 6; ++step) {
      const Rows rows(step);
      critic.zero_grad();
      critic.set_weight(rows);
      const auto critic_loss = [&](nn::Module& of, nn::Module& by, const Batch& batch) {
        return mean_squared_error(by(fake(of, batch).detach()), Variable(batch.y) * -1.0) +
               mean_squared_error(by(batch.x), batch.y);
      };
      critic_loss(generator.model, critic.model, rows.own).backward();
      critic_loss(generator.serial, critic.serial, rows.all).backward();
      EXPECT_EQ(generator.has_grad(), step > 0);
      critic.step();

      generator.zero_grad();
      critic.zero_grad();
      generator.set_weight(rows);
      if (freezes) critic.set_requires_grad(false);
      generator_loss(generator.model, critic.model, rows.own).backward();
      generator_loss(generator.serial, critic.serial, rows.all).backward();
      EXPECT_EQ(critic.has_grad(), !freezes);
      if (!freezes) expect_close_gradients(critic.model, critic.serial);
      critic.set_requires_grad(true);
      generator.step();
    }
    expect_as_serial(generator, freezes ? "frozen" : "");
    expect_as_serial(critic, freezes ? "frozen" : "");
  }
}

TEST(SeveralReducers, that_synchronise_their_batch_norms_do_so_in_one_loss) {
  const auto make = [](std::uint64_t seed) {
    const nn::LinearOptions options{.dtype = DType::f64};
    nn::Sequential model{nn::Linear(4, 3, options), nn::BatchNorm(3, {.dtype = DType::f64}),
                         nn::Linear(3, 2, options)};
    model.initialize(seed);
    return model;
  };
  nn::Sequential a = make(1), b = make(2), serial_a = make(1), serial_b = make(2);
  DataParallel of_a(a, world(), {.synchronise_batch_norm = true});
  DataParallel of_b(b, world(), {.synchronise_batch_norm = true});
  const auto loss = [](nn::Module& first, nn::Module& second, const Batch& batch) {
    return mean_squared_error(first(batch.x) * second(batch.x), batch.y);
  };
  for (std::uint64_t step = 0; step < 3; ++step) {
    const Rows rows(step);
    for (DataParallel* replica : {&of_a, &of_b}) {
      replica->reducer().set_weight(static_cast<double>(rows.own.size()));
    }
    loss(a, b, rows.own).backward();
    loss(serial_a, serial_b, rows.all).backward();
  }
  expect_close_gradients(a, serial_a);
  expect_close_gradients(b, serial_b);
  expect_close_states(a, serial_a);
  expect_close_states(b, serial_b);
}

TEST(SeveralReducers, go_on_where_one_of_them_goes) {
  for_each_arrangement([](const Communicator& ranks, const std::string& name) {
    Pair staying(3, ranks);
    auto going = std::make_unique<Pair>(4, ranks), last = std::make_unique<Pair>(5, ranks);
    staying.zero_grad();
    auto deferral = staying.replica.no_sync();
    staying.backward(1);
    for (Pair* pair : {last.get(), going.get()}) pair->train(2);
    // Each rank ends them when and in which order it likes.
    if (ranks.rank() % 2 == 0) going.reset();
    last.reset();
    deferral.reset();
    staying.replica.reducer().finish();
    going.reset();
    staying.step();
    Pair coming(6, ranks);
    for (std::uint64_t key = 3; key < 6; ++key) {
      coming.train(key);
      staying.train(key);
    }
    expect_as_serial(staying, name);
    expect_as_serial(coming, name);
  });
}

TEST(SeveralReducers, are_usable_where_a_rank_has_thrown_in_the_backward_of_one) {
  for_each_arrangement([](const Communicator& ranks, const std::string& name) {
    Pair first(3, ranks, momentum, {.bucket_bytes = 1}), second(4, ranks), third(5, ranks);
    const int culprit = ranks.size() - 1;
    const auto failing = [&](const Variable& x) {
      return autograd::record(x.value(), {x},
                              [&](const Tensor&, std::span<autograd::GradientSlot>) {
                                if (ranks.rank() == culprit)
                                  throw std::runtime_error("no derivative");
                              });
    };
    for (Pair* pair : {&first, &second, &third}) pair->train(1);
    auto deferral = third.replica.no_sync();
    third.zero_grad();
    third.backward(2);
    // Those that the backward has come to, or was to, and no others.
    const StateDict before = first.model.state_dict().clone();
    const Rows rows(3);
    const Variable loss = sum(first.model(rows.own.x)) + sum(failing(second.model(rows.own.x)));
    first.optimizer.zero_grad();
    if (ranks.rank() == culprit) {
      EXPECT_TRUE(throws<std::runtime_error>([&] { loss.backward(); }, "no derivative"));
    } else {
      const std::string rank = "(rank " + std::to_string(culprit) + ")";
      EXPECT_TRUE(throws<Error>([&] { loss.backward(); }, "no derivative", rank)) << name;
    }
    EXPECT_FALSE(first.has_grad());
    EXPECT_TRUE(second.has_grad());  // that of before
    EXPECT_TRUE(bit_equal(first.model.state_dict(), before));
    deferral.reset();
    third.replica.reducer().finish();
    expect_close_gradients(third.model, third.serial, name);
    third.step();
    for (Pair* pair : {&second, &third, &first}) {
      pair->train(4);
      expect_as_serial(*pair, name);
    }
  });
}

TEST(SeveralReducers, of_another_communicator_are_usable_where_the_order_was_wrong) {
  if (world().size() == 1) return;
  Pair sound(3, world());
  {
    const Communicator ranks = world().duplicate();
    Pair first(4, ranks), second(5, ranks);
    sound.train(1);
    Pair& own = world().rank() == 1 ? second : first;
    EXPECT_TRUE(throws<StateError>([&] { own.train(2); }, "the ranks do not make the same call"));
    sound.train(3);
    EXPECT_TRUE(throws<StateError>([&] { first.train(4); }, "the ranks do not make the same call"));
  }
  sound.train(5);
  expect_as_serial(sound);
}

}  // namespace several_reducers_test
}  // namespace lockstep
