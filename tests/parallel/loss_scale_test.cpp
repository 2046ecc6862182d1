// What loss scaling makes of gradients that are averaged over all ranks.
#include "lockstep/optim/loss_scale.hpp"

#include <cstdint>
#include <optional>

#include "lockstep/autograd/losses.hpp"
#include "lockstep/autograd/operations.hpp"
#include "lockstep/nn/layers.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/parallel/data_parallel.hpp"
#include "lockstep/tensor/random.hpp"
#include "lockstep/testing/mpi_test.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace loss_scale_test {

using optim::LossScale;
using testing::world;

Tensor drawn(std::uint64_t key, const Shape& shape) {
  Tensor tensor = Tensor::empty(shape);
  fill_uniform(tensor, RandomKey(key).fold(static_cast<std::uint64_t>(world().rank())), -1, 1);
  return tensor;
}

// A replica on each rank, with data of its own.
class Training {
 public:
  explicit Training(const optim::UpdateRule& rule, std::optional<optim::LossScaleOptions> scale)
      : optimizer(model.named_parameters(), rule) {
    if (scale) this->scale.emplace(*scale);
    optimizer.set_clipping({.global_norm = 0.5});
  }

  // Where `gain` is not 1, that of this rank's loss.
  StepReport step(std::uint64_t number, double gain = 1) {
    optimizer.zero_grad();
    const Variable loss =
        mean_squared_error(replica(drawn(2 * number, {3, 4})), drawn(2 * number + 1, {3, 2})) *
        gain;
    if (!scale) {
      loss.backward();
      return optimizer.step();
    }
    scale->scale(loss).backward();
    const StepReport report = scale->step(optimizer);
    scale->update();
    return report;
  }

  StateDict state() const {
    return StateDict{{"model", model.state_dict()}, {"optimizer", optimizer.state_dict()}}.clone();
  }

  nn::Sequential model{nn::Linear(4, 8), nn::Tanh(), nn::Linear(8, 2)};
  DataParallel replica{model, world()};
  NamedOptimizer optimizer;
  std::optional<LossScale> scale;
};

void expect_same_bits(const optim::UpdateRule& rule) {
  Training plain(rule, std::nullopt);
  Training scaled(rule, optim::LossScaleOptions{.initial = 1024, .growth_interval = 2});
  for (Training* training : {&plain, &scaled}) training->model.initialize(3);
  for (std::uint64_t step = 0; step < 8; ++step) {
    const StepReport expected = plain.step(step), found = scaled.step(step);
    EXPECT_EQ(found.gradient_norm, expected.gradient_norm);
  }
  EXPECT_EQ(scaled.scale->value(), 1024 * 16);
  EXPECT_TRUE(bit_equal(plain.state(), scaled.state()));
}

TEST(LossScale, of_powers_of_two_trains_to_the_same_bits_as_without) {
  expect_same_bits(optim::Adam({.lr = 0.05}));
  expect_same_bits(optim::SGD({.lr = 0.1, .momentum = 0.9, .weight_decay = 0.01}));
}

TEST(LossScale, backs_off_on_all_ranks_where_the_loss_of_one_overflows) {
  for (int culprit = 0; culprit < world().size(); ++culprit) {
    Training training(optim::Adam({.lr = 0.05}), optim::LossScaleOptions{});
    EXPECT_TRUE(training.step(0).applied);
    const StateDict before = training.state();
    const double gain = world().rank() == culprit ? 1e36 : 1;  // finite, but not times 65536
    const StepReport report = training.step(1, gain);
    EXPECT_FALSE(report.applied);
    EXPECT_FALSE(report.non_finite.empty());
    EXPECT_TRUE(bit_equal(before, training.state()));
    EXPECT_EQ(training.scale->value(), 32768);
    EXPECT_TRUE(training.step(2).applied);
  }
}

}  // namespace loss_scale_test
}  // namespace lockstep
