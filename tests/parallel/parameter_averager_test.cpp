#include "lockstep/parallel/parameter_averager.hpp"

#include <fmt/format.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
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
#include "lockstep/tensor/random.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace parameter_averager_test {

using optim::Adam;
using optim::SGD;
using testing::throws;
using testing::world;

std::uint64_t own_rank() { return static_cast<std::uint64_t>(world().rank()); }
bool last_rank() { return world().rank() == world().size() - 1; }

Tensor drawn(std::uint64_t key, const Shape& shape) {
  Tensor tensor = Tensor::empty(shape);
  fill_uniform(tensor, RandomKey(key).fold(own_rank()), -1, 1);
  return tensor;
}

// Whether all ranks have the same bits.
bool same_on_all(const Tensor& tensor) {
  Tensor first = tensor.clone();
  world().broadcast_bytes(first.raw(), first.bytes());
  return world().all_reduce(std::int64_t{bit_equal(first, tensor)}, ReduceOp::min) == 1;
}

bool same_on_all(const StateDict& state) {
  bool same = true;
  for (const auto& [name, value] : state) {
    if (const auto* tensor = std::get_if<Tensor>(&value.variant())) {
      same = same_on_all(*tensor) && same;
    } else if (const auto* dict = std::get_if<StateDict>(&value.variant())) {
      same = same_on_all(*dict) && same;
    }
  }
  return same;
}

nn::Sequential make_model(std::uint64_t seed) {
  nn::Sequential model{nn::Linear(4, 8), nn::Tanh(), nn::Linear(8, 2)};
  model.initialize(seed);
  return model;
}

void expect_close(const nn::Module& found, const nn::Module& expected, double tolerance) {
  const StateDict wanted = expected.state_dict();
  for (const auto& [name, value] : found.state_dict()) {
    const Tensor a = value.as_tensor(), b = wanted.at(name).as_tensor();
    for (std::int64_t i = 0; i < a.size(); ++i) {
      EXPECT_NEAR(a.data<float>()[i], b.data<float>()[i], tolerance) << name;
    }
  }
}

TEST(ParameterAverager, starts_all_ranks_from_the_values_of_rank_0) {
  nn::Sequential model = make_model(own_rank());
  const ParameterAverager averager(model.named_parameters(), world());
  EXPECT_TRUE(bit_equal(model.state_dict(), make_model(0).state_dict()));
  EXPECT_EQ(averager.rounds(), 0);
}

TEST(ParameterAverager, after_every_step_of_sgd_does_what_averaged_gradients_do) {
  for (const optim::SGDOptions& options :
       {optim::SGDOptions{.lr = 0.1},
        optim::SGDOptions{.lr = 0.1, .momentum = 0.9, .weight_decay = 0.01, .nesterov = true}}) {
    nn::Sequential local = make_model(3), reduced = make_model(3);
    ParameterAverager averager(local.named_parameters(), world(), {.every = 1});
    const DataParallel replica(reduced, world());
    NamedOptimizer by_value(local.named_parameters(), SGD(options));
    NamedOptimizer by_gradient(reduced.named_parameters(), SGD(options));
    for (std::uint64_t step = 0; step < 8; ++step) {
      const Tensor x = drawn(2 * step, {3, 4}), y = drawn(2 * step + 1, {3, 2});
      by_value.zero_grad();
      mean_squared_error(local(x), y).backward();
      by_value.step();
      averager.step(by_value);
      by_gradient.zero_grad();
      mean_squared_error(replica(x), y).backward();
      by_gradient.step();
      EXPECT_TRUE(same_on_all(local.state_dict()));
      EXPECT_TRUE(same_on_all(by_value.state_dict()));
    }
    expect_close(local, reduced, 1e-6);
    EXPECT_EQ(averager.rounds(), 8);
  }
}

// Of rank r the loss is a (w - c)² / 2 with numbers of its own, in double precision.
class Quadratic : public ::testing::Test {
 protected:
  static double curvature(int rank) { return 1 + 0.5 * rank; }
  static double centre(int rank) { return 3.0 * rank - 1; }

  // The gradient at the present value, and the optimizer's step.
  void step(KeyedOptimizer& optimizer) {
    const int rank = world().rank();
    w_.mutable_grad().fill(curvature(rank) * (value() - centre(rank)));
    optimizer.step();
  }
  double value() const { return w_.value().data<double>()[0]; }

  Parameter w_{"w", Tensor::full({1}, 5, DType::f64)};
};

TEST_F(Quadratic, follows_local_sgd_in_closed_form) {
  constexpr double lr = 0.1;
  NamedOptimizer optimizer({w_}, SGD({.lr = lr}));
  ParameterAverager averager({w_}, world(), {.every = 4});
  const int ranks = world().size();
  double start = 5;
  for (int round = 0; round < 3; ++round) {
    double mean = 0;
    for (int step = 1; step <= 4; ++step) {
      this->step(optimizer);
      mean = 0;
      const auto after = [&](int rank) {
        return centre(rank) + std::pow(1 - lr * curvature(rank), step) * (start - centre(rank));
      };
      for (int rank = 0; rank < ranks; ++rank) mean += after(rank) / ranks;
      EXPECT_NEAR(value(), after(world().rank()), 1e-13);
      averager.step();
      EXPECT_EQ(same_on_all(w_.value()), step == 4 || ranks == 1);
      EXPECT_NEAR(value(), step == 4 ? mean : after(world().rank()), 1e-13);
    }
    start = mean;
  }
  EXPECT_EQ(averager.steps(), 12);
  EXPECT_EQ(averager.rounds(), 3);
}

TEST_F(Quadratic, averages_momentum_where_the_optimizer_is_given) {
  constexpr double lr = 0.1, momentum = 0.8;
  const auto ranks = static_cast<std::size_t>(world().size());
  const double begin = value();
  for (const bool with_momentum : {false, true}) {
    w_.mutable_value().fill(begin);
    NamedOptimizer optimizer({w_}, SGD({.lr = lr, .momentum = momentum}));
    ParameterAverager averager({w_}, world(), {.every = 3});
    std::vector<double> w(ranks, begin), v(ranks, 0);
    const auto average = [ranks](std::vector<double>& numbers) {
      double sum = 0;
      for (const double number : numbers) sum += number;
      numbers.assign(ranks, sum / static_cast<double>(ranks));
    };
    for (int step = 1; step <= 10; ++step) {
      this->step(optimizer);
      for (std::size_t r = 0; r < ranks; ++r) {
        const int rank = static_cast<int>(r);
        v[r] = momentum * v[r] + curvature(rank) * (w[r] - centre(rank));
        w[r] -= lr * v[r];
      }
      if (step % 3 == 0) {
        average(w);
        if (with_momentum) average(v);
      }
      if (with_momentum) {
        averager.step(optimizer);
      } else {
        averager.step();
      }
      EXPECT_NEAR(value(), w[own_rank()], 1e-13) << with_momentum << ", " << step;
      const StateDict state = optimizer.state_dict();
      const StateDict& slots = state.at("state").as_dict().at("w").as_dict();
      EXPECT_NEAR(slots.at("momentum_buffer").as_tensor().data<double>()[0], v[own_rank()], 1e-13);
    }
  }
}

TEST_F(Quadratic, averages_after_each_step_of_the_warm_up) {
  NamedOptimizer optimizer({w_}, SGD({.lr = 0.1}));
  ParameterAverager averager({w_}, world(), {.every = 3, .warmup_steps = 2});
  std::vector<bool> same;
  for (int step = 1; step <= 8; ++step) {
    this->step(optimizer);
    averager.step();
    same.push_back(same_on_all(w_.value()));
  }
  const bool alone = world().size() == 1;
  EXPECT_EQ(same, (std::vector<bool>{true, true, alone, alone, true, alone, alone, true}));
  EXPECT_EQ(averager.rounds(), 4);
  this->step(optimizer);
  averager.average();
  EXPECT_TRUE(same_on_all(w_.value()));
  EXPECT_EQ(averager.rounds(), 5);
  EXPECT_EQ(averager.steps(), 8);
}

// Averages tensors of these sizes, of alternating types, and the slots of an optimizer.
void expect_means(const Communicator& ranks, const std::vector<std::int64_t>& sizes) {
  std::vector<NamedParameter> parameters;
  for (const std::int64_t size : sizes) {
    const DType dtype = parameters.size() % 2 == 0 ? DType::f32 : DType::f64;
    parameters.emplace_back(std::to_string(parameters.size()),
                            Parameter(Tensor::zeros({size}, dtype)));
  }
  NamedOptimizer optimizer(parameters, Adam());
  optimizer.init_state();
  ParameterAverager averager(parameters, ranks);
  const auto number = [](std::int64_t i, double rank) {
    return (rank + 1) * static_cast<double>(i % 1000);
  };
  const auto fill = [&](Tensor tensor) {
    Tensor numbers = Tensor::empty(tensor.shape(), DType::f64);
    for (std::int64_t i = 0; i < tensor.size(); ++i) {
      numbers.data<double>()[i] = number(i, ranks.rank());
    }
    tensor.copy_from(numbers.to(tensor.dtype()));
  };
  const auto expect_mean = [&](const Tensor& tensor, const std::string& name) {
    const Tensor found = tensor.to(DType::f64);
    std::int64_t wrong = 0;
    for (std::int64_t i = 0; i < found.size(); ++i) {
      const double expected = number(i, (ranks.size() - 1) / 2.0);
      if (std::abs(found.data<double>()[i] - expected) > 1e-6 * expected) ++wrong;
    }
    EXPECT_EQ(wrong, 0) << name;
    EXPECT_TRUE(same_on_all(tensor)) << name;
  };
  const StateDict state = optimizer.state_dict();
  for (auto& [name, parameter] : parameters) {
    fill(parameter.mutable_value());
    fill(state.at("state").as_dict().at(name).as_dict().at("exp_avg").as_tensor());
  }
  averager.average(optimizer);
  for (const auto& [name, parameter] : parameters) {
    expect_mean(parameter.value(), name);
    const StateDict& slots = state.at("state").as_dict().at(name).as_dict();
    expect_mean(slots.at("exp_avg").as_tensor(), name + " exp_avg");
    EXPECT_EQ(slots.at("exp_avg_sq").as_tensor().to(DType::f64).data<double>()[0], 0);
  }
}

TEST(ParameterAverager, averages_tensors_of_both_types_wherever_the_ranks_are) {
  for (const auto& arrangement : testing::arrangements()) {
    SCOPED_TRACE(arrangement.name);
    const Communicator ranks(world().handle(), arrangement.options);
    expect_means(ranks, {3, 1, 16, 17, 300});
  }
}

TEST(ParameterAverager, averages_more_than_goes_at_a_time) {
  // 1 MiB does, which is 262144 numbers of f32, and 131072 of f64.
  expect_means(world(), {262143, 131072, 2, 1, 262144});
  expect_means(world(), {600000});
}

class Mismatch : public ::testing::Test {
 protected:
  // That all ranks refuse to average the optimizer, for what is said of an entry, and change nothing.
  void expect_refused(const std::string& entry) {
    const StateDict values = model_.state_dict().clone(), state = optimizer_.state_dict().clone();
    const std::string expected =
        fmt::format("the optimizers of the ranks cannot be averaged: '{}", entry);
    bool collective = false;
    const auto call = [&] {
      try {
        averager_.step(optimizer_);
      } catch (const Error& error) {
        collective = error.collective();
        throw;
      }
    };
    EXPECT_TRUE(throws<StateError>(call, expected));
    EXPECT_TRUE(collective);
    EXPECT_TRUE(bit_equal(values, model_.state_dict()));
    EXPECT_TRUE(bit_equal(state, optimizer_.state_dict()));
    EXPECT_EQ(averager_.steps(), 0);
    EXPECT_EQ(averager_.rounds(), 0);
  }

  void train() {
    optimizer_.zero_grad();
    sum(model_(drawn(1, {3, 4}))).backward();
    optimizer_.step();
  }

  nn::Sequential model_ = make_model(1);
  NamedOptimizer optimizer_{model_.named_parameters(), Adam()};
  ParameterAverager averager_{model_.named_parameters(), world(), {.every = 1}};
};

TEST_F(Mismatch, of_step_counts_is_an_error_on_all_ranks) {
  if (world().size() == 1) return;
  train();
  if (last_rank()) train();
  expect_refused("state/0.bias/step' on rank");
}

TEST_F(Mismatch, of_slots_is_an_error_on_all_ranks) {
  if (world().size() == 1) return;
  if (last_rank()) train();
  expect_refused("state/0.bias' is ");
  optimizer_.init_state();
  if (!last_rank()) train();
  averager_.step(optimizer_);
}

TEST_F(Mismatch, of_hyper_parameters_is_an_error_on_all_ranks) {
  if (world().size() == 1) return;
  train();
  if (last_rank()) optimizer_.param_groups()[0].set_lr(0.5);
  expect_refused("param_groups/0/lr' on rank");
}

TEST_F(Mismatch, of_parameters_or_options_is_refused_at_construction) {
  using Parameters = std::vector<NamedParameter>;
  const auto make = [](const Parameters& parameters, const ParameterAveragerOptions& options) {
    return [&parameters, options] { const ParameterAverager made(parameters, world(), options); };
  };
  const Parameters good{Parameter("a", Tensor::zeros({2}))};
  const auto refused_by = [&](const Parameters& bad) { return make(last_rank() ? bad : good, {}); };
  const Parameters none, hole{{"hole", Parameter()}};
  EXPECT_TRUE(throws<OptionError>(refused_by(none), "the parameter averager got no parameters"));
  EXPECT_TRUE(throws<StateError>(refused_by(hole), "'hole' is undefined"));
  EXPECT_TRUE(throws<OptionError>(make(good, {.every = last_rank() ? 0 : 1}),
                                  "expected every >= 1, found 0"));
  EXPECT_TRUE(throws<OptionError>(make(good, {.warmup_steps = last_rank() ? -1 : 1}),
                                  "expected warmup_steps >= 0, found -1"));
  if (world().size() == 1) return;
  const Parameters named{Parameter("b", Tensor::zeros({2}))};
  const Parameters shaped{Parameter("a", Tensor::zeros({3}))};
  const Parameters typed{Parameter("a", Tensor::zeros({2}, DType::f64))};
  EXPECT_TRUE(throws<NameError>(refused_by(named), "'a'", "'b'"));
  EXPECT_TRUE(throws<ShapeError>(refused_by(shaped), "(3)"));
  EXPECT_TRUE(throws<DTypeError>(refused_by(typed), "f64"));
  EXPECT_TRUE(throws<OptionError>(make(good, {.every = last_rank() ? 3 : 2}),
                                  "differently: 'every' on rank"));
}

TEST_F(Mismatch, of_the_state_to_restore_is_refused_and_the_rest_goes_on_from_there) {
  for (int step = 0; step < 2; ++step) averager_.step();
  averager_.average();
  ParameterAverager resumed(model_.named_parameters(), world(), {.every = 2, .warmup_steps = 2});
  resumed.restore(averager_.state_dict());
  EXPECT_EQ(resumed.steps(), 2);
  EXPECT_EQ(resumed.rounds(), 3);
  resumed.step();
  EXPECT_EQ(resumed.rounds(), 3);
  resumed.step();
  EXPECT_EQ(resumed.rounds(), 4);
  const StateDict before = resumed.state_dict();
  const auto refused = [&](const StateDict& source, const char* message) {
    EXPECT_THROW(resumed.restore(source), StateError);
    return throws<StateError>([&] { resumed.check_restore(source); }, message);
  };
  EXPECT_TRUE(refused({{"steps", -1}, {"rounds", 0}}, "expected steps >= 0, found -1"));
  EXPECT_TRUE(refused({{"steps", 0}, {"rounds", -1}}, "expected rounds >= 0, found -1"));
  EXPECT_TRUE(bit_equal(before, resumed.state_dict()));
}

TEST(ParameterAverager, averages_the_buffers_of_a_module_and_counts_are_the_largest) {
  nn::Sequential model{nn::BatchNorm(3)};
  auto& norm = model.at<nn::BatchNorm>(0);
  norm.running_mean.fill(world().rank() == 0 ? 6 : -1);
  ParameterAverager averager(model, world());
  EXPECT_TRUE(bit_equal(norm.running_mean, Tensor::full({3}, 6)));
  norm.running_mean.fill(world().rank());
  norm.num_batches_tracked.fill(world().rank());
  averager.average();
  const double mean = (world().size() - 1) / 2.0;
  EXPECT_TRUE(bit_equal(norm.running_mean, Tensor::full({3}, mean)));
  EXPECT_EQ(norm.num_batches_tracked.item(), world().size() - 1);
}

}  // namespace parameter_averager_test
}  // namespace lockstep
