#include "lockstep/optim/lbfgs.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "checkpoint/training.hpp"
#include "lockstep/autograd/losses.hpp"
#include "lockstep/autograd/operations.hpp"
#include "lockstep/checkpoint/checkpoint.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/optim/combined_optimizer.hpp"
#include "lockstep/optim/step_in_backward.hpp"
#include "lockstep/parallel/data_parallel.hpp"
#include "lockstep/parallel/gradient_reducer.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "optim/small_parameters.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3);

namespace lockstep {
namespace lbfgs_test {

using namespace testing;
using nlohmann::json;
using optim::LBFGS;
using optim::LBFGSOptions;

// The problem of golden/lbfgs.py, and an optimizer of it.
class Problem {
 public:
  explicit Problem(DType dtype, const LBFGSOptions& options = {})
      : x_("x", Tensor::from(std::vector{-1.2, 1.0, -0.5, 0.8}, {4}).to(dtype)),
        w_("w", Tensor::from(std::vector{-1.0, -0.6, -0.2, 0.2, 0.6, 1.0}, {2, 3}).to(dtype)),
        optimizer_({x_, w_}, options) {}

  double step() {
    return optimizer_.step([this] { return loss(); });
  }

  // In the precision of the parameters, as the script does.
  double loss() {
    ++evaluations;
    if (x_.dtype() == DType::f32) return rosenbrock<float>() + least_squares<float>();
    return rosenbrock<double>() + least_squares<double>();
  }

  LBFGS& optimizer() { return optimizer_; }
  Parameter& x() { return x_; }
  Parameter& w() { return w_; }
  StateDict values() const { return {{"x", x_.value().clone()}, {"w", w_.value().clone()}}; }

  int evaluations = 0;

 private:
  template <class T>
  double rosenbrock() {
    const T* x = x_.value().data<T>();
    T* gradient = x_.mutable_grad().data<T>();
    std::fill_n(gradient, 4, T{0});
    double loss = 0;
    for (int i = 0; i < 3; ++i) {
      const T rest = x[i + 1] - x[i] * x[i], shifted = 1 - x[i];
      loss += 100 * rest * rest + shifted * shifted;
      gradient[i] += -400 * x[i] * rest - 2 * shifted;
      gradient[i + 1] += 200 * rest;
    }
    return loss;
  }

  template <class T>
  double least_squares() {
    const T* w = w_.value().data<T>();
    T* gradient = w_.mutable_grad().data<T>();
    std::fill_n(gradient, 6, T{0});
    double loss = 0;
    for (int i = 0; i < 2; ++i) {
      for (int j = 0; j < 3; ++j) {
        const T factor = static_cast<T>(i + 1);
        const T following = j < 2 ? w[3 * i + j + 1] : T{0};
        const T rest = factor * w[3 * i + j] + following / 2 - static_cast<T>(i - j);
        loss += rest * rest;
        gradient[3 * i + j] += 2 * factor * rest;
        if (j < 2) gradient[3 * i + j + 1] += rest;
      }
    }
    return loss;
  }

  Parameter x_, w_;
  LBFGS optimizer_;
};

LBFGSOptions options_of(const json& test) {
  LBFGSOptions options;
  for (const auto& [name, value] : test.at("options").items()) {
    for (const optim::Field& field : options.fields()) {
      if (field.name != name) continue;
      std::visit([&value = value]<class T>(T* target) { *target = value.get<T>(); }, field.value);
    }
  }
  return options;
}

void expect_near(const Tensor& found, const json& numbers, double bound, const std::string& what) {
  const auto expected = numbers.get<std::vector<double>>();
  const Tensor wide = found.to(DType::f64);
  double largest = 0, error = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    largest = std::max(largest, std::abs(expected[i]));
    error = std::max(error, std::abs(wide.data<double>()[i] - expected[i]));
  }
  EXPECT_LE(error, bound * largest) << what;
}

// Small differences grow with each iteration, so only the first ones are compared: 24 to 1e-7 of the
// largest value in f64, and 10 to 5e-3 in f32, where torch adds up in f32 too.
TEST(LBFGS, follows_torch) {
  std::ifstream file(LOCKSTEP_GOLDEN_DIR "/lbfgs.json");
  int compared = 0;
  for (const json& test : json::parse(file)) {
    SCOPED_TRACE(test.at("options").dump() + test.at("dtype").dump());
    const bool wide = test.at("dtype") == "f64";
    const double bound = wide ? 1e-7 : 5e-3;
    Problem problem(wide ? DType::f64 : DType::f32, options_of(test));
    for (const json& expected : test.at("steps")) {
      if (expected.at("iterations").get<int>() > (wide ? 24 : 10)) break;
      const double loss = problem.step();
      EXPECT_NEAR(loss, expected.at("loss").get<double>(),
                  bound * std::max(1.0, std::abs(expected.at("loss").get<double>())));
      expect_near(problem.x().value(), expected.at("x"), bound, "x");
      expect_near(problem.w().value(), expected.at("w"), bound, "w");
      EXPECT_EQ(problem.evaluations, expected.at("evaluations").get<int>());
      const StateDict saved = problem.optimizer().state_dict();
      EXPECT_EQ(saved.at("search").as_dict().at("iterations").as_int(),
                expected.at("iterations").get<int>());
      ++compared;
    }
  }
  EXPECT_EQ(compared, 26);
}

TEST(LBFGS, finds_the_minimum_of_both_problems) {
  for (const bool strong_wolfe : {false, true}) {
    Problem problem(DType::f64, {.tolerance_change = 1e-20, .strong_wolfe = strong_wolfe});
    for (int step = 0; step < 6; ++step) problem.step();
    EXPECT_LT(problem.loss(), 1e-16);
    for (const double x : problem.x().value().span<double>()) EXPECT_NEAR(x, 1, 1e-7);
  }
}

TEST(LBFGS, a_search_never_takes_a_step_to_a_larger_loss) {
  Problem problem(DType::f64, {.max_iter = 1, .strong_wolfe = true});
  double before = problem.loss();
  for (int step = 0; step < 40; ++step) {
    problem.step();
    const double loss = problem.loss();
    EXPECT_LE(loss, before) << step;
    before = loss;
  }
}

TEST(LBFGS, ends_at_once_where_the_gradient_is_zero) {
  Problem problem(DType::f64, {.tolerance_grad = 1e9});
  const StateDict before = problem.values();
  problem.step();
  EXPECT_EQ(problem.evaluations, 1);
  EXPECT_TRUE(bit_equal(before, problem.values()));
}

TEST(LBFGS, goes_on_after_a_restore_as_if_it_had_never_stopped) {
  const LBFGSOptions options{.max_iter = 3, .history_size = 4, .strong_wolfe = true};
  Problem original(DType::f64, options), resumed(DType::f64);
  for (int step = 0; step < 3; ++step) original.step();
  const SharedFolder folder;
  checkpoint::save(folder / "c", world(), {{"optimizer", original.optimizer()}});
  checkpoint::load(folder / "c", world(), {{"optimizer", resumed.optimizer()}});
  resumed.x().mutable_value().copy_from(original.x().value());
  resumed.w().mutable_value().copy_from(original.w().value());
  for (int step = 0; step < 3; ++step) {
    original.step();
    resumed.step();
  }
  EXPECT_TRUE(bit_equal(original.values(), resumed.values()));
  EXPECT_TRUE(bit_equal(original.optimizer().state_dict(), resumed.optimizer().state_dict()));
}

TEST(LBFGS, a_frozen_parameter_stays_where_it_is) {
  Problem problem(DType::f64, {.strong_wolfe = true});
  problem.w().set_requires_grad(false);
  const Tensor before = problem.w().value().clone();
  for (int step = 0; step < 4; ++step) problem.step();
  EXPECT_TRUE(bit_equal(before, problem.w().value()));
  for (const double x : problem.x().value().span<double>()) EXPECT_NEAR(x, 1, 1e-6);
}

TEST(LBFGS, a_parameter_frozen_between_steps_stays_where_it_is_then) {
  for (const bool strong_wolfe : {false, true}) {
    Problem problem(DType::f64, {.max_iter = 5, .strong_wolfe = strong_wolfe});
    problem.step();
    problem.w().set_requires_grad(false);
    const Tensor before = problem.w().value().clone();
    for (int step = 0; step < 3; ++step) problem.step();
    EXPECT_TRUE(bit_equal(before, problem.w().value()));
    problem.w().set_requires_grad(true);
    problem.step();
    EXPECT_FALSE(bit_equal(before, problem.w().value()));
  }
}

// Without a search, the first step goes beyond 0, where log(x) is not a number.
TEST(LBFGS, a_step_to_where_the_loss_is_not_a_number_is_an_error_and_undone) {
  Parameter x("x", Tensor::from(std::vector{10.0}, {1}));
  LBFGS optimizer({x}, {.lr = 1000});
  EXPECT_TRUE(throws<StateError>(
      [&] {
        optimizer.step([&x] {
          const double at = x.value().item();
          x.mutable_grad().data<double>()[0] = at > 0 ? 1 - 2 / at : NAN;
          return at - 2 * std::log(at);
        });
      },
      "LBFGS: the loss is"));
  EXPECT_EQ(x.value().item(), 10);
}

TEST(LBFGS, an_exception_of_the_closure_leaves_everything_as_it_was) {
  for (const int failing : {1, 2, 5, 9}) {
    Problem problem(DType::f64, {.strong_wolfe = true});
    problem.step();
    const StateDict values = problem.values();
    const StateDict state = problem.optimizer().state_dict().clone();
    int calls = 0;
    EXPECT_THROW(problem.optimizer().step([&]() -> double {
      if (++calls == failing) throw std::runtime_error("no luck");
      return problem.loss();
    }),
                 std::runtime_error);
    EXPECT_TRUE(bit_equal(values, problem.values())) << failing;
    EXPECT_TRUE(bit_equal(state, problem.optimizer().state_dict())) << failing;
  }
}

TEST(LBFGS, a_loss_or_gradient_that_is_not_finite_at_the_start_is_an_error) {
  Problem problem(DType::f64);
  const StateDict values = problem.values();
  EXPECT_TRUE(throws<StateError>([&] { problem.optimizer().step([] { return NAN; }); },
                                 "LBFGS: the loss is nan"));
  EXPECT_TRUE(throws<StateError>(
      [&] {
        problem.optimizer().step([&] {
          const double loss = problem.loss();
          problem.w().mutable_grad().data<double>()[4] = HUGE_VAL;
          return loss;
        });
      },
      "the gradient of parameter 'w' is not finite"));
  EXPECT_TRUE(bit_equal(values, problem.values()));
}

// log(x) is not a number left of 0, where the first step along the line lands.
TEST(LBFGS, a_search_turns_back_from_where_the_loss_is_not_a_number) {
  Parameter x("x", Tensor::from(std::vector{10.0}, {1}));
  LBFGS optimizer({x}, {.lr = 1000, .strong_wolfe = true});
  for (int step = 0; step < 10; ++step) {
    optimizer.step([&x] {
      const double at = x.value().item();
      x.mutable_grad().data<double>()[0] = 1 - 2 / at;
      return at - 2 * std::log(at);
    });
  }
  EXPECT_NEAR(x.value().item(), 2, 1e-4);
}

TEST(LBFGS, refuses_what_it_cannot_do_by_name) {
  Problem problem(DType::f64);
  LBFGS& optimizer = problem.optimizer();
  EXPECT_TRUE(throws<OptionError>([&] { optimizer.step(); },
                                  "LBFGS needs a closure that computes the loss: step(closure)"));
  EXPECT_TRUE(
      throws<OptionError>([&] { optimizer.step_parameter(problem.x()); }, "LBFGS needs a closure"));
  EXPECT_TRUE(throws<OptionError>([&] { StepInBackward({optimizer}); }, "LBFGS needs a closure"));
  EXPECT_TRUE(throws<OptionError>(
      [&] {
        CombinedOptimizer({{"all", optimizer}});
      },
      "LBFGS needs a closure"));
  EXPECT_TRUE(throws<OptionError>([&] { optimizer.step(KeyedOptimizer::Closure()); },
                                  "the closure of a step must not be empty"));
  EXPECT_TRUE(
      throws<OptionError>([&] { optimizer.add_param_group({.params = "x"}); },
                          "LBFGS steps all of its parameters at once: it has one param group"));
  optimizer.set_clipping({.global_norm = 1.0});
  EXPECT_TRUE(throws<OptionError>([&] { problem.step(); }, "LBFGS cannot clip gradients"));
  optimizer.remove_clipping();
  const auto make = [](const LBFGSOptions& options) {
    return [options] { Problem(DType::f64, options); };
  };
  EXPECT_TRUE(throws<OptionError>(make({.lr = -1}), "LBFGS: expected lr >= 0, found -1"));
  EXPECT_TRUE(throws<OptionError>(make({.max_iter = 0}), "LBFGS: expected max_iter > 0, found 0"));
  EXPECT_TRUE(throws<OptionError>(make({.tolerance_grad = NAN}),
                                  "LBFGS: expected tolerance_grad >= 0, found nan"));
  EXPECT_TRUE(
      throws<OptionError>(make({.history_size = 0}), "LBFGS: expected history_size > 0, found 0"));
}

TEST(LBFGS, refuses_state_that_does_not_fit_and_keeps_its_own) {
  Problem source(DType::f64, {.strong_wolfe = true}), problem(DType::f64);
  source.step();
  problem.step();
  const StateDict before = problem.optimizer().state_dict().clone();
  const auto refused = [&]<class E>(const E*, const auto& edit, const std::string& message) {
    StateDict state = source.optimizer().state_dict().clone();
    edit(state);
    EXPECT_TRUE(throws<E>([&] { problem.optimizer().restore(state); }, message));
    EXPECT_TRUE(throws<E>([&] { problem.optimizer().load_state_dict(state); }, message));
    EXPECT_TRUE(bit_equal(before, problem.optimizer().state_dict()));
  };
  const auto of_w = [](StateDict& state) -> StateDict& {
    return state["state"].as_dict()["w"].as_dict();
  };
  const StateError* state_error = nullptr;
  const ShapeError* shape_error = nullptr;
  const DTypeError* dtype_error = nullptr;
  const OptionError* option_error = nullptr;
  refused(
      state_error, [](StateDict& state) { state["rule"] = "Adam"; }, "the state is of Adam");
  refused(
      shape_error,
      [&](StateDict& state) {
        of_w(state)["direction"] = Tensor::zeros({3, 2}, DType::f64);
      },
      "state direction of parameter w");
  refused(
      dtype_error,
      [&](StateDict& state) {
        of_w(state)["direction"] = Tensor::zeros({2, 3});
      },
      "state direction of parameter w");
  refused(
      state_error, [&](StateDict& state) { of_w(state)["value_changes"].as_list().pop_back(); },
      "gradient_changes and value_changes of parameter w");
  refused(
      state_error, [](StateDict& state) { state["search"].as_dict()["scale"] = NAN; },
      "the state's scale is nan");
  refused(
      option_error,
      [](StateDict& state) { state["param_groups"].as_list()[0].as_dict()["lr"] = -1.0; },
      "LBFGS: expected lr >= 0, found -1");
}

// Each rank has rows of its own; the loss and its gradients are the means over the ranks.
TEST(LBFGS, ranks_search_in_step) {
  const auto rank = static_cast<std::uint64_t>(world().rank());
  const Tensor inputs = drawn(40 + rank, {6, 3}, DType::f64);
  Parameter weight("weight", drawn(7, {1, 3}, DType::f64));
  const Tensor wanted = Tensor::from(std::vector{0.5, -2.0, 1.5}, {1, 3});
  const Tensor targets = linear(inputs, wanted, Variable()).value();
  GradientReducer reducer({weight}, world());
  LBFGS optimizer({weight}, {.strong_wolfe = true});
  for (int step = 0; step < 3; ++step) {
    optimizer.step([&] {
      optimizer.zero_grad();
      const Variable loss = mean_squared_error(linear(inputs, weight, Variable()), targets);
      loss.backward();
      return world().all_reduce(loss.value().item()) / world().size();
    });
  }
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_NEAR(weight.value().data<double>()[i], wanted.data<double>()[i], 1e-4);
  }
}

}  // namespace lbfgs_test
}  // namespace lockstep
