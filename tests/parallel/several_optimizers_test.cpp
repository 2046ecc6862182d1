// Optimizers of the parameters of two reducers, in all ways to share these out.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lockstep/autograd/losses.hpp"
#include "lockstep/autograd/operations.hpp"
#include "lockstep/nn/layers.hpp"
#include "lockstep/optim/combined_optimizer.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/optim/step_in_backward.hpp"
#include "lockstep/parallel/data_parallel.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "parallel/batches.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace several_optimizers_test {

using namespace testing;

using Optimizers = std::vector<std::reference_wrapper<KeyedOptimizer>>;

const optim::SGD rule({.lr = 0.1, .momentum = 0.9});

/// Two models that one loss reaches, and optimizers of which some are used.
struct Training {
  std::vector<NamedParameter> ending(const std::string& suffix) const {
    std::vector<NamedParameter> some;
    for (const auto& [prefix, model] : {std::pair("a.", &a), std::pair("b.", &b)}) {
      for (const auto& [name, parameter] : model->named_parameters()) {
        if (name.ends_with(suffix)) some.emplace_back(prefix + name, parameter);
      }
    }
    return some;
  }

  /// With batches of which each rank has three rows, or by this process alone.
  StateDict run(const Optimizers& optimizers, bool alone = false) {
    std::optional<DataParallel> of_a, of_b;
    if (!alone) {
      of_a.emplace(a, world());
      of_b.emplace(b, world());
    }
    for (std::uint64_t step = 0; step < 4; ++step) {
      const Batch all = draw_batch(step, 3 * world().size());
      const Batch batch = alone ? all : all.slice(3 * world().rank(), 3 * world().rank() + 3);
      for (KeyedOptimizer& optimizer : optimizers) optimizer.zero_grad();
      mean_squared_error(a(batch.x) * b(batch.x), batch.y).backward();
      for (KeyedOptimizer& optimizer : optimizers) optimizer.step();
    }
    StateDict values;
    for (const auto& [name, parameter] : ending("")) values[name] = parameter.value().clone();
    return values;
  }

  nn::Sequential a = make_model(3), b = make_model(4);
  NamedOptimizer first{a.named_parameters(), rule}, second{b.named_parameters(), rule};
  NamedOptimizer weights{ending("weight"), rule}, biases{ending("bias"), rule};
  NamedOptimizer both{ending(""), rule};
  CombinedOptimizer combined{{{"a", first}, {"b", second}}};
};

TEST(SeveralOptimizers, of_several_reducers_train_to_the_bits_of_one) {
  Training one, each, shared_out, combined, alone;
  const StateDict expected = one.run({one.both});
  EXPECT_TRUE(bit_equal(each.run({each.second, each.first}), expected));
  EXPECT_TRUE(bit_equal(shared_out.run({shared_out.weights, shared_out.biases}), expected));
  EXPECT_TRUE(bit_equal(combined.run({combined.combined}), expected));
  for (const auto& [name, value] : alone.run({alone.both}, true)) {
    EXPECT_TRUE(close(expected.at(name).as_tensor(), value.as_tensor())) << name;
  }
}

TEST(SeveralOptimizers, step_in_a_backward_that_reaches_several_reducers) {
  Training after;
  const StateDict expected = after.run({after.both});
  const auto in_backward = [](auto optimizers_of) {
    Training training;
    const StepInBackward steps(optimizers_of(training));
    return training.run({});
  };
  EXPECT_TRUE(bit_equal(in_backward([](Training& t) { return Optimizers{t.both}; }), expected));
  EXPECT_TRUE(bit_equal(in_backward([](Training& t) { return Optimizers{t.combined}; }), expected));
  EXPECT_TRUE(bit_equal(in_backward([](Training& t) {
                          return Optimizers{t.biases, t.weights};
                        }),
                        expected));
}

}  // namespace several_optimizers_test
}  // namespace lockstep
