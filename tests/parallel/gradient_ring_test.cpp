// Gradients that are not kept: those of a few buckets at a time.

#include <algorithm>
#include <cfenv>
#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "comm/placements.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/nn/batch_norm.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/parallel/data_parallel.hpp"
#include "lockstep/parallel/step_in_reduction.hpp"
#include "parallel/batches.hpp"
#include "parallel/sharded_pair.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace gradient_ring_test {

using namespace testing;

using Random = std::mt19937_64;

std::size_t draw(Random& random, std::size_t below) {
  return std::uniform_int_distribution<std::size_t>(0, below - 1)(random);
}

std::vector<NamedParameter> random_parameters(Random& random) {
  const std::int64_t sizes[] = {0, 1, 15, 16, 17, 300, 1000, 6000};
  std::vector<NamedParameter> parameters;
  const std::size_t count = 1 + draw(random, 12);
  for (std::size_t i = 0; i < count; ++i) {
    Tensor value =
        Tensor::empty({sizes[draw(random, 8)]}, draw(random, 2) == 0 ? DType::f32 : DType::f64);
    fill_normal(value, RandomKey(i), 0, 1);
    parameters.emplace_back("p" + std::to_string(i), Parameter(value));
  }
  return parameters;
}

std::vector<NamedParameter> copies(const std::vector<NamedParameter>& parameters) {
  std::vector<NamedParameter> copies;
  for (const auto& [name, parameter] : parameters) {
    copies.emplace_back(name, Parameter(parameter.value().clone()));
  }
  return copies;
}

// Steps of the same parameters by what keeps gradients and steps them whole, and by what does neither.
struct Both {
  Both(const std::vector<NamedParameter>& parameters, const Communicator& ranks,
       std::size_t bucket_bytes, bool shared_replica = false, WireFormat wire = WireFormat::full)
      : ranks(ranks),
        whole(copies(parameters)),
        sharded(copies(parameters)),
        reducer(whole, ranks, {.wire = wire}),
        ring(sharded, ranks, {.bucket_bytes = bucket_bytes, .wire = wire, .keep_gradients = false}),
        optimizer(whole, adam),
        sharded_optimizer(sharded, adam, ranks, {.shared_replica = shared_replica}),
        in_reduction(ring, sharded_optimizer) {}

  void set_requires_grad(std::size_t i, bool requires_grad) {
    whole[i].parameter.set_requires_grad(requires_grad);
    sharded[i].parameter.set_requires_grad(requires_grad);
  }

  // In that order, and sometimes late.
  void step(std::uint64_t key, const std::vector<std::size_t>& order, Random* delays = nullptr) {
    optimizer.zero_grad();
    for (auto [parameters, through] : {std::pair(&whole, &reducer), std::pair(&sharded, &ring)}) {
      for (const std::size_t i : order) {
        Parameter& parameter = (*parameters)[i].parameter;
        if (delays != nullptr && draw(*delays, 8) == 0) {
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        const RandomKey own(1000 * key + static_cast<std::uint64_t>(ranks.rank()));
        fill_normal(parameter.mutable_grad(), own.fold(std::to_string(i)), 0, 1);
        through->mark_ready(parameter);
      }
      through->finish();
    }
    if (ranks.all_reduce(static_cast<std::int64_t>(order.size())) > 0) optimizer.step();
  }

  ::testing::AssertionResult are_same() const {
    for (std::size_t i = 0; i < whole.size(); ++i) {
      if (sharded[i].parameter.has_grad()) return ::testing::AssertionFailure() << "a gradient";
      if (bit_equal(whole[i].parameter.value(), sharded[i].parameter.value())) continue;
      return ::testing::AssertionFailure() << whole[i].name;
    }
    const StateDict state = sharded_optimizer.gather_state_dict();
    return ranks.rank() == 0 ? same(state, optimizer.state_dict()) : ::testing::AssertionSuccess();
  }

  Communicator ranks;
  std::vector<NamedParameter> whole, sharded;
  GradientReducer reducer, ring;
  NamedOptimizer optimizer;
  ShardedOptimizer sharded_optimizer;
  StepInReduction in_reduction;
};

std::vector<std::size_t> last_to_first(std::size_t count) {
  std::vector<std::size_t> order(count);
  std::iota(order.rbegin(), order.rend(), std::size_t{0});
  return order;
}

std::vector<NamedParameter> equal_parameters(std::size_t count, std::int64_t size) {
  std::vector<NamedParameter> parameters;
  for (std::size_t i = 0; i < count; ++i) {
    parameters.emplace_back("p" + std::to_string(i), Parameter(Tensor::full({size}, 1)));
  }
  return parameters;
}

TEST(GradientRing, steps_to_the_bits_of_gradients_that_are_kept) {
  std::uint64_t seed = 0;
  for (const Arrangement& arrangement : arrangements()) {
    Communicator ranks(world().handle(), arrangement.options);
    for (const std::uint64_t last = seed + 3; seed < last; ++seed) {
      SCOPED_TRACE(arrangement.name + ", seed " + std::to_string(seed));
      Random random(seed), own(100 * seed + static_cast<std::uint64_t>(world().rank()));
      const std::size_t bucket_bytes[] = {300, 1000, 4096, std::size_t{1} << 18};
      const std::vector<NamedParameter> parameters = random_parameters(random);
      Both both(parameters, ranks, bucket_bytes[seed % 4], seed % 3 == 0);
      for (std::uint64_t step = 0; step < 6; ++step) {
        std::vector<std::size_t> order;
        for (std::size_t i = 0; i < parameters.size(); ++i) {
          both.set_requires_grad(i, step < 2 || draw(random, 3) != 0);
          // What only some ranks have, and what none has.
          const bool none = draw(random, 6) == 0;
          if (both.whole[i].parameter.requires_grad() && !none && draw(own, 6) != 0) {
            order.push_back(i);
          }
        }
        Random of_order(draw(random, 2) == 0 ? step : own());
        std::shuffle(order.begin(), order.end(), of_order);
        both.step(step, order, &own);
      }
      EXPECT_TRUE(both.are_same());
    }
    ranks.close();
  }
}

TEST(GradientRing, takes_sums_as_they_travel_between_two_nodes) {
  for (const Arrangement& arrangement : arrangements()) {
    // Ranks that share no memory are nodes by themselves.
    const bool two =
        arrangement.options.share_memory ? arrangement.nodes.size() == 2 : world().size() == 2;
    if (!two) continue;
    SCOPED_TRACE(arrangement.name);
    Communicator ranks(world().handle(), arrangement.options);
    for (const WireFormat wire : {WireFormat::fp16, WireFormat::bf16}) {
      Random random(7);
      const std::vector<NamedParameter> parameters = random_parameters(random);
      Both both(parameters, ranks, 4096, false, wire);
      for (std::uint64_t step = 0; step < 3; ++step) {
        both.step(step, last_to_first(parameters.size()));
      }
      EXPECT_TRUE(both.are_same());
    }
    ranks.close();
  }
}

// As that of a signalling NaN, which raises an exception where it is added.
TEST(GradientRing, does_not_add_what_lies_behind_a_gradient) {
  if (world().size() == 1) return;
  Both both(equal_parameters(3, 100), world(), 600);
  for (const bool late : {false, true}) {
    both.set_requires_grad(0, late);
    std::feclearexcept(FE_INVALID);
    for (auto& [name, parameter] : both.sharded) {
      if (!parameter.requires_grad()) continue;
      float* const gradient = parameter.mutable_grad().data<float>();
      std::fill(gradient + 100, gradient + 112, std::numeric_limits<float>::signaling_NaN());
      both.ring.mark_ready(parameter);
    }
    both.ring.finish();
    EXPECT_EQ(std::fetestexcept(FE_INVALID), 0) << (late ? "late" : "in a bucket");
  }
}

// Each gradient is a bucket, of which all but the last need not wait for the end.
TEST(GradientRing, has_no_memory_of_gradients_but_those_that_wait_for_a_slot) {
  if (world().size() == 1) return;
  constexpr std::size_t count = 40;
  Both both(equal_parameters(count, 100), world(), 400);
  const auto waiting = [&] {
    return std::count_if(both.sharded.begin(), both.sharded.end(),
                         [](const NamedParameter& p) { return p.parameter.has_grad(); });
  };
  const bool late = world().rank() == world().size() - 1;
  for (const bool together : {true, false}) {
    if (!together && late) world().barrier();
    for (const std::size_t i : last_to_first(count)) {
      Parameter& parameter = both.sharded[i].parameter;
      parameter.mutable_grad().fill(1);
      both.ring.mark_ready(parameter);
      if (together) {
        world().barrier();
        EXPECT_LE(waiting(), 1);
      }
    }
    if (!together && !late) {
      EXPECT_EQ(waiting(), count - 8);
      world().barrier();
    }
    both.ring.finish();
    EXPECT_EQ(waiting(), 0);
  }
}

TEST(GradientRing, reduces_what_adds_up_over_backwards) {
  nn::Sequential model = make_model(), expected = make_model();
  DataParallel replica(model, world(), {.bucket_bytes = 100, .keep_gradients = false});
  DataParallel expected_replica(expected, world());
  ShardedOptimizer sharded(model.named_parameters(), adam, world());
  NamedOptimizer whole(expected.named_parameters(), adam);
  const StepInReduction in_reduction(replica.reducer(), sharded);
  for (std::uint64_t step = 0; step < 4; ++step) {
    const Batch batch = draw_batch(10 * step + static_cast<std::uint64_t>(world().rank()), 6);
    whole.zero_grad();
    for (DataParallel* data : {&replica, &expected_replica}) {
      nn::Module& net = data->model();
      if (step % 2 == 0) {
        const auto deferral = data->no_sync();
        data->backward(batch, loss_of(net));
      }
      data->backward(batch, loss_of(net), {.parts = 3});
    }
    whole.step();
  }
  EXPECT_TRUE(same(model.state_dict(), expected.state_dict()));
}

// Whose ranks wait for each other in the middle of a backward.
TEST(GradientRing, lets_ranks_that_are_ahead_go_on_to_other_calls) {
  const nn::LinearOptions options{.dtype = DType::f64};
  const auto make = [&] {
    nn::Sequential model;
    for (int layer = 0; layer < 6; ++layer) {
      model.append(nn::Linear(4, 4, options));
      model.append(nn::BatchNorm(4, {.dtype = DType::f64}));
    }
    model.append(nn::Linear(4, 2, options));
    model.initialize(1);
    return model;
  };
  nn::Sequential model = make(), expected = make();
  DataParallel replica(
      model, world(), {.bucket_bytes = 1, .keep_gradients = false, .synchronise_batch_norm = true});
  DataParallel expected_replica(expected, world(), {.synchronise_batch_norm = true});
  ShardedOptimizer sharded(model.named_parameters(), adam, world());
  NamedOptimizer whole(expected.named_parameters(), adam);
  const StepInReduction in_reduction(replica.reducer(), sharded);
  Random random(static_cast<std::uint64_t>(world().rank()));
  std::vector<NamedParameter> named = model.named_parameters();
  for (NamedParameter& parameter : named) {
    parameter.parameter.register_hook([&](const Parameter&) {
      if (draw(random, 10) == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    });
  }
  for (std::uint64_t step = 0; step < 3; ++step) {
    const Batch batch = draw_batch(10 * step + static_cast<std::uint64_t>(world().rank()), 5);
    replica.backward(batch, loss_of(model));
    whole.zero_grad();
    expected_replica.backward(batch, loss_of(expected));
    whole.step();
  }
  EXPECT_TRUE(same(model.state_dict(), expected.state_dict()));
}

TEST(GradientRing, is_refused_where_gradients_are_needed_as_a_whole) {
  const auto refused = [](const DataParallelOptions& options) {
    nn::Sequential model = make_model();
    return throws<OptionError>([&] { DataParallel(model, world(), options); }, "not kept");
  };
  EXPECT_TRUE(refused({.missing = MissingGradients::leave_out, .keep_gradients = false}));
  EXPECT_TRUE(refused({.compression = std::make_shared<TopK>(), .keep_gradients = false}));
  EXPECT_TRUE(refused({.keep_gradients = false, .logical_replicas = 4}));
}

TEST(GradientRing, needs_a_step_in_each_reduction) {
  if (world().size() == 1) return;
  Both both(equal_parameters(3, 5), world(), 1);
  nn::Sequential model = make_model();
  DataParallel replica(model, world(), {.keep_gradients = false});
  const auto backward = [&] { replica.backward(draw_batch(1, 3), loss_of(model)); };
  for (int round = 0; round < 2; ++round) {
    EXPECT_TRUE(throws<StateError>(backward, "not kept"));
    EXPECT_TRUE(throws<StateError>([&] { replica.reducer().finish(); }, "not kept"));
    EXPECT_FALSE(model.named_parameters()[0].parameter.has_grad());
  }
  ShardedOptimizer optimizer(model.named_parameters(), adam, world());
  {
    const StepInReduction in_reduction(replica.reducer(), optimizer);
    backward();
  }
  EXPECT_TRUE(throws<StateError>(backward, "not kept"));
  const StepInReduction again(replica.reducer(), optimizer);
  backward();
  expect_equal_on_all_ranks(model);

  both.step(1, {2, 1, 0});
  EXPECT_TRUE(throws<StateError>([&] { both.ring.mark_ready(both.sharded[0].parameter); },
                                 "'p0' has no gradient"));
  both.step(2, {2, 1, 0});
  EXPECT_TRUE(both.are_same());
}

TEST(StepInReduction, steps_nothing_where_a_rank_fails_or_has_no_weight) {
  for (const Arrangement& arrangement : arrangements()) {
    SCOPED_TRACE(arrangement.name);
    Communicator ranks(world().handle(), arrangement.options);
    for (const bool keep_gradients : {true, false}) {
      nn::Sequential model = make_model();
      DataParallel replica(model, ranks, {.bucket_bytes = 100, .keep_gradients = keep_gradients});
      ShardedOptimizer optimizer(model.named_parameters(), adam, ranks);
      const StepInReduction in_reduction(replica.reducer(), optimizer);
      replica.backward(draw_batch(1, 3), loss_of(model));
      const StateDict before = model.state_dict().clone();
      const bool fails = ranks.rank() + 1 == ranks.size();
      for (int round = 0; round < 2; ++round) {
        EXPECT_TRUE(throws<DataError>(
            [&] {
              replica.backward(draw_batch(2, 3), [&](const Batch& batch) -> Variable {
                if (fails) throw DataError("bad sample");
                return loss_of(model)(batch);
              });
            },
            "bad sample"));
        // Gradients that are kept wait for the next weight.
        if (ranks.size() > 1 && !keep_gradients) {
          replica.reducer().set_weight(fails ? -1 : 1);
          EXPECT_TRUE(
              throws<OptionError>([&] { loss_of(model)(draw_batch(2, 3)).backward(); }, "weight"));
          replica.reducer().set_weight(1);
        }
        EXPECT_TRUE(same(model.state_dict(), before));
      }
      replica.backward(draw_batch(2, 3), loss_of(model));
      EXPECT_FALSE(bit_equal(model.state_dict(), before));
      expect_equal_on_all_ranks(model);
    }
    ranks.close();
  }
}

// All slices of it, or none, also where others have not come far enough for all of them to have a slot.
TEST(GradientRing, steps_the_whole_of_a_large_parameter_or_nothing) {
  nn::Sequential model{nn::Linear(4, 100), nn::Tanh(), nn::Linear(100, 200), nn::Tanh(),
                       nn::Linear(200, 2)};
  model.initialize(1);
  DataParallel replica(model, world(), {.bucket_bytes = 1000, .keep_gradients = false});
  ShardedOptimizer optimizer(model.named_parameters(), adam, world());
  const StepInReduction in_reduction(replica.reducer(), optimizer);
  Batch batch{Tensor::empty({3, 4}), Tensor::empty({3, 2})};
  fill_normal(batch.x, RandomKey(1), 0, 1);
  fill_normal(batch.y, RandomKey(2), 0, 1);
  replica.backward(batch, loss_of(model));
  Parameter first = model.at<nn::Linear>(0).weight, large = model.at<nn::Linear>(2).weight;
  const bool fails = world().rank() + 1 == world().size();
  const Tensor first_before = first.value().clone(), before = large.value().clone();
  std::int64_t stepped = 0;
  for (const bool after : {false, true}) {
    Parameter& fatal = after ? first : large;
    const std::int64_t hook = fatal.register_hook([&](const Parameter&) {
      if (!fails) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      throw DataError("bad hook");
    });
    EXPECT_TRUE(throws<DataError>([&] { replica.backward(batch, loss_of(model)); }, "bad hook"));
    fatal.remove_hook(hook);
    const auto now = large.value().span<float>(), then = std::as_const(before).span<float>();
    stepped = 0;
    for (std::size_t i = 0; i < now.size(); ++i) stepped += now[i] == then[i] ? 0 : 1;
    EXPECT_EQ(stepped, after && world().size() > 1 ? large.value().size() : 0);
    EXPECT_TRUE(bit_equal(first.value(), first_before));
    expect_equal_on_all_ranks(model);
  }
}

}  // namespace gradient_ring_test
}  // namespace lockstep
