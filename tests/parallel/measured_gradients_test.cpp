// Norms that a reduction measures, in clipping and in the look for what is not finite.

#include <array>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "autograd/state.hpp"
#include "comm/placements.hpp"
#include "lockstep/autograd/losses.hpp"
#include "lockstep/autograd/operations.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/core/part_begin.hpp"
#include "lockstep/nn/layers.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/clipping.hpp"
#include "lockstep/optim/loss_scale.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/optim/step_in_backward.hpp"
#include "lockstep/parallel/data_parallel.hpp"
#include "lockstep/tensor/random.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "parallel/batches.hpp"
#include "tensor/dispatch.hpp"
#include "tensor/kernels.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace measured_gradients_test {

using namespace testing;
using optim::clip_gradients;
using optim::ClippingReport;

// A reducer has measured nothing that was reduced before it was asked, and the round in which it
// tells others so.
constexpr int rounds_to_begin = 2;

std::optional<double> measured(const Parameter& parameter) {
  const std::size_t index = autograd::VariableState::of(parameter)->parameter->index;
  return parameter.gradient_owner()->sum_squares(index);
}

double squares_of(const Parameter& parameter) {
  return dispatch_floating(parameter.dtype(), [&]<class T>() {
    return kernels::sum_squares(parameter.size(), parameter.grad().data<T>());
  });
}

bool equal_on_all_ranks(double number) {
  std::vector<double> first{number};
  world().broadcast(std::span(first));
  return world().all_reduce(std::int64_t{first[0] == number || std::isnan(number)},
                            ReduceOp::min) == 1;
}

bool several() { return world().size() > 1; }
double number_of_rank() { return world().rank() + 1; }
double mean_of_ranks() { return (world().size() + 1) / 2.0; }

// Parameters with gradients of which the norm has a closed form: each number of parameter i is
// factor(i) times the mean over ranks.
class Gradients {
 public:
  static constexpr std::array<std::int64_t, 5> sizes{1, 300, 17, 2049, 129};

  explicit Gradients(const GradientReducerOptions& options = {}) {
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      const DType dtype = i % 2 == 0 ? DType::f32 : DType::f64;
      parameters.emplace_back("p" + std::to_string(i), Parameter(Tensor::zeros({sizes[i]}, dtype)));
    }
    reducer.emplace(parameters, world(), options);
  }

  static double factor(std::size_t i) { return 0.5 + static_cast<double>(i); }

  // Of those parameters for which `reaches` holds on this rank; those of two dtypes in two backwards.
  void backward(const std::function<bool(std::size_t)>& reaches, double gain = 1) {
    std::shared_ptr<const void> held = reducer->no_sync();
    for (const DType dtype : {DType::f32, DType::f64}) {
      Variable loss(Tensor::zeros({}, dtype));
      for (std::size_t i = 0; i < parameters.size(); ++i) {
        const Parameter& parameter = parameters[i].parameter;
        if (parameter.dtype() != dtype || !reaches(i)) continue;
        loss = loss + sum(parameter) * (gain * factor(i) * number_of_rank());
      }
      if (loss.requires_grad()) loss.backward();
    }
    held.reset();
    reducer->finish();
  }
  void backward() {
    backward([](std::size_t) { return true; });
  }
  void zero_grad() {
    for (NamedParameter& named : parameters) named.parameter.zero_grad();
  }
  // As many rounds as it takes, of gradients that are forgotten.
  void begin_to_measure() {
    for (int round = 0; round < rounds_to_begin; ++round) {
      zero_grad();
      backward();
      clip_gradients(parameters, {});
    }
    zero_grad();
  }
  Parameter& operator[](std::size_t i) { return parameters[i].parameter; }

  // Of numbers that are factor(i) * gains[i].
  static double norm(const std::vector<double>& gains) {
    double squares = 0;
    for (std::size_t i = 0; i < gains.size(); ++i) {
      squares += static_cast<double>(sizes[i]) * std::pow(factor(i) * gains[i], 2);
    }
    return std::sqrt(squares);
  }
  // What clipping reports, which must be the norm of the numbers to the bit, and alike on all ranks.
  double reported_norm() {
    double squares = 0;
    for (const NamedParameter& named : parameters) {
      if (named.parameter.has_grad() && named.parameter.requires_grad()) {
        squares += squares_of(named.parameter);
      }
    }
    const ClippingReport report = clip_gradients(parameters, {});
    EXPECT_EQ(report.global_norm, std::sqrt(squares));
    EXPECT_TRUE(equal_on_all_ranks(report.global_norm));
    EXPECT_TRUE(report.non_finite.empty());
    return report.global_norm;
  }
  // Whether the reduction has measured this one, and nobody has changed it since.
  bool is_measured(std::size_t i) {
    return autograd::VariableState::of((*this)[i])->flags->reduced &&
           measured((*this)[i]).has_value();
  }

  std::vector<NamedParameter> parameters;
  std::optional<GradientReducer> reducer;
};

nn::Sequential make_wide_model() {
  nn::Sequential model{nn::Linear(4, 300, {.dtype = DType::f64}), nn::Tanh(),
                       nn::Linear(300, 2, {.dtype = DType::f64})};
  model.initialize(5);
  return model;
}

TEST(MeasuredGradients, have_the_squares_of_their_numbers_to_the_bit) {
  const std::vector<std::int64_t> sizes{0, 1, 3, 16, 127, 128, 129, 255, 256, 257, 1000, 20000};
  std::size_t bucket_bytes = 1;
  for (const Arrangement& arrangement : arrangements()) {
    const Communicator ranks(world().handle(), arrangement.options);
    bucket_bytes = bucket_bytes == 1 ? 1U << 14 : 1;
    std::vector<NamedParameter> parameters;
    for (const std::int64_t size : sizes) {
      for (const DType dtype : {DType::f32, DType::f64}) {
        parameters.emplace_back(std::to_string(parameters.size()),
                                Parameter(Tensor::zeros({size}, dtype)));
      }
    }
    GradientReducer reducer(parameters, ranks, {.bucket_bytes = bucket_bytes});
    for (int round = 0; round <= rounds_to_begin; ++round) {
      reducer.set_weight(1 + number_of_rank() * round);
      for (std::size_t i = 0; i < parameters.size(); ++i) {
        const RandomKey key = RandomKey(17 * i + static_cast<std::uint64_t>(round))
                                  .fold(static_cast<std::uint64_t>(world().rank()));
        fill_uniform(parameters[i].parameter.mutable_grad(), key, -1, 1);
        reducer.mark_ready(parameters[i].parameter);
      }
      reducer.finish();
      for (const auto& [name, parameter] : parameters) {
        const std::optional<double> squares = measured(parameter);
        EXPECT_EQ(squares.has_value(), several() && round == rounds_to_begin) << round;
        EXPECT_EQ(squares.value_or(squares_of(parameter)), squares_of(parameter))
            << arrangement.name << ", parameter " << name;
      }
    }
  }
}

TEST(MeasuredGradients, of_which_one_rank_is_asked_are_measured_by_all) {
  Gradients gradients;
  for (int round = 0; round <= rounds_to_begin; ++round) {
    gradients.zero_grad();
    gradients.backward();
    const bool last = round == rounds_to_begin;
    if (world().rank() == world().size() - 1 || last) {
      EXPECT_EQ(measured(gradients[1]).has_value(), several() && last);
    }
  }
}

TEST(MeasuredGradients, have_the_norm_that_closed_forms_say) {
  Gradients gradients;
  const double mean = mean_of_ranks();
  const double expected = Gradients::norm({mean, mean, mean, mean, mean});
  for (int round = 0; round < rounds_to_begin + 2; ++round) {
    gradients.zero_grad();
    gradients.backward();
    EXPECT_NEAR(gradients.reported_norm(), expected, 1e-6 * expected) << round;
    EXPECT_EQ(gradients.is_measured(3), several() && round >= rounds_to_begin);
  }
  clip_gradients(gradients.parameters, {.global_norm = 0.5});
  EXPECT_FALSE(gradients.is_measured(3));
  EXPECT_NEAR(gradients.reported_norm(), 0.5, 1e-5);
}

TEST(MeasuredGradients, are_measured_anew_where_somebody_has_changed_them) {
  Gradients gradients;
  gradients.begin_to_measure();
  const double mean = mean_of_ranks();
  gradients.backward();
  gradients[1].mutable_grad().fill(3 * Gradients::factor(1));
  gradients[4].zero_grad();
  double expected = Gradients::norm({mean, 3, mean, mean, 0});
  EXPECT_NEAR(gradients.reported_norm(), expected, 1e-6 * expected);
  // Gradients that add up: to what was reduced, to what was written, and to nothing.
  gradients.backward();
  expected = Gradients::norm({2 * mean, mean + 3, 2 * mean, 2 * mean, mean});
  EXPECT_NEAR(gradients.reported_norm(), expected, 1e-6 * expected);
  EXPECT_EQ(gradients.is_measured(4), several());
  EXPECT_FALSE(gradients.is_measured(0));
}

TEST(MeasuredGradients, that_some_ranks_leave_out_count_as_they_are) {
  Gradients gradients({.missing = MissingGradients::leave_out});
  gradients.begin_to_measure();
  const bool first = world().rank() == 0;
  gradients.backward([first](std::size_t i) { return i == 4 || i == (first ? 0 : 1); });
  const double mean = mean_of_ranks();
  const double of_others = several() ? mean + 0.5 : 0;  // of ranks 1 and on
  const double expected = Gradients::norm({1, of_others, 0, 0, mean});
  EXPECT_NEAR(gradients.reported_norm(), expected, 1e-6 * expected);
  EXPECT_FALSE(gradients[2].has_grad());
}

TEST(MeasuredGradients, of_frozen_parameters_do_not_count_and_stay_as_they_were) {
  Gradients gradients;
  gradients.begin_to_measure();
  const double mean = mean_of_ranks();
  gradients.backward();
  const auto others_only = [&](double gain) {
    for (const std::size_t i : {0U, 1U, 2U, 4U}) gradients[i].zero_grad();
    gradients.backward([](std::size_t i) { return i != 3; });
    return Gradients::norm({mean, mean, mean, gain, mean});
  };
  gradients[3].set_requires_grad(false);
  for (int round = 0; round < 3; ++round) {
    const double expected = others_only(0);
    EXPECT_NEAR(gradients.reported_norm(), expected, 1e-6 * expected);
  }
  // Its gradient of before is there again; and then it travels in a bucket of its own.
  gradients[3].set_requires_grad(true);
  double expected = Gradients::norm({mean, mean, mean, mean, mean});
  EXPECT_NEAR(gradients.reported_norm(), expected, 1e-6 * expected);
  gradients.zero_grad();
  gradients.backward([](std::size_t) { return true; }, 2);
  expected *= 2;
  EXPECT_NEAR(gradients.reported_norm(), expected, 1e-6 * expected);
  EXPECT_EQ(gradients.is_measured(3), several());
}

TEST(MeasuredGradients, that_are_no_numbers_are_found_and_named_in_order) {
  Gradients gradients;
  NamedOptimizer optimizer(gradients.parameters, optim::SGD());
  optim::LossScale scale({.initial = 8, .growth_interval = 0});
  gradients.begin_to_measure();
  for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    for (int culprit = 0; culprit < world().size(); ++culprit) {
      for (NamedParameter& named : gradients.parameters) {
        Tensor& gradient = named.parameter.mutable_grad();
        gradient.fill(1);
        if (world().rank() == culprit && (named.name == "p1" || named.name == "p3")) {
          gradient.data<double>()[gradient.size() - 1] = bad;
        }
        gradients.reducer->mark_ready(named.parameter);
      }
      gradients.reducer->finish();
      EXPECT_EQ(gradients.is_measured(1), several());
      EXPECT_TRUE(throws<StateError>([&] { clip_gradients(gradients.parameters, {}); },
                                     "the gradient of parameter 'p1' is not finite, nor are 1"));
      const StepReport report = scale.step(optimizer);
      EXPECT_FALSE(report.applied);
      EXPECT_EQ(report.non_finite, (std::vector<std::string>{"p1", "p3"}));
      EXPECT_EQ(gradients[1].value().data<double>()[0], 0);
    }
  }
}

TEST(MeasuredGradients, of_logical_replicas_have_the_same_norm_on_any_number_of_ranks) {
  const auto norms = [](const Communicator& ranks) {
    nn::Sequential model = make_wide_model();
    DataParallel replica(model, ranks, {.bucket_bytes = 4096, .logical_replicas = 8});
    NamedOptimizer optimizer(model.named_parameters(), optim::Adam());
    optimizer.set_clipping({.global_norm = 0.1});
    std::vector<double> found;
    for (std::uint64_t step = 0; step < 4; ++step) {
      optimizer.zero_grad();
      const Batch global = draw_batch(step, 16);
      const std::int64_t begin = part_begin(8, ranks.rank(), ranks.size()),
                         end = part_begin(8, ranks.rank() + 1, ranks.size());
      const Batch own = global.slice(2 * begin, 2 * end);
      replica.backward(
          own, [&](const Batch& batch) { return mean_squared_error(model(batch.x), batch.y); });
      found.push_back(optimizer.step().gradient_norm.value());
    }
    found.push_back(model.named_parameters()[0].parameter.value().data<double>()[7]);
    return found;
  };
  const std::vector<double> alone = norms(Communicator(MPI_COMM_SELF));
  for (const Arrangement& arrangement : arrangements()) {
    EXPECT_EQ(norms(Communicator(world().handle(), arrangement.options)), alone)
        << arrangement.name;
  }
}

TEST(MeasuredGradients, are_clipped_by_their_own_norms_within_the_backward) {
  const auto trained = [](bool in_backward, double limit) {
    nn::Sequential model = make_wide_model();
    DataParallel replica(model, world());
    NamedOptimizer optimizer(model.named_parameters(), optim::SGD({.lr = 0.1}));
    optimizer.set_clipping({.norm = limit});
    std::optional<StepInBackward> steps;
    if (in_backward) steps.emplace(StepInBackward::Optimizers{optimizer});
    for (std::uint64_t step = 0; step < 5; ++step) {
      const Batch batch = draw_batch(step * 8 + static_cast<std::uint64_t>(world().rank()), 3);
      mean_squared_error(replica(batch.x), batch.y).backward();
      if (in_backward) continue;
      // What is clipped there must be what was reduced, before and after it was measured.
      for (const auto& [name, parameter] : model.named_parameters()) {
        Parameter(parameter).mutable_grad();
      }
      optimizer.step();
      optimizer.zero_grad();
    }
    expect_equal_on_all_ranks(model);
    return model.state_dict().clone();
  };
  EXPECT_TRUE(bit_equal(trained(true, 0.05), trained(false, 0.05)));
  EXPECT_FALSE(bit_equal(trained(true, 0.05), trained(true, 100)));
}

}  // namespace measured_gradients_test
}  // namespace lockstep
