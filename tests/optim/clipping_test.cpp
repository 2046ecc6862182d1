// Clipping of gradients, by itself and in a step. Expected numbers are made by golden/clipping.py.

#include "lockstep/optim/clipping.hpp"

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "lockstep/autograd/operations.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "optim/small_parameters.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace clipping_test {

using namespace testing;
using nlohmann::json;
using optim::Adam;
using optim::clip_gradients;
using optim::Clipping;
using optim::ClippingReport;
using optim::NonFinite;
using optim::SGD;

constexpr double infinity = std::numeric_limits<double>::infinity();
const double nan = std::nan("");

Clipping clipping_of(const json& test) {
  Clipping clipping;
  const double limit = test.at("limit");
  if (test.at("kind") == "value") clipping.value = limit;
  if (test.at("kind") == "norm") clipping.norm = limit;
  if (test.at("kind") == "global_norm") clipping.global_norm = limit;
  clipping.norm_type =
      test.at("norm_type").is_string() ? infinity : test.at("norm_type").get<double>();
  return clipping;
}

TEST(Clipping, follows_torch) {
  std::ifstream file(LOCKSTEP_GOLDEN_DIR "/clipping.json");
  const json tests = json::parse(file);
  ASSERT_EQ(tests.size(), 54U);
  const std::vector<Shape> shapes{{3, 5}, {7}, {33}, {1}};
  for (const json& test : tests) {
    SCOPED_TRACE(test.at("kind").dump() + " " + test.at("dtype").dump() + " " +
                 test.at("limit").dump() + " " + test.at("norm_type").dump());
    const DType dtype = test.at("dtype") == "f32" ? DType::f32 : DType::f64;
    const double tolerance = dtype == DType::f32 ? 1e-6 : 1e-14;
    std::vector<NamedParameter> parameters;
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      Parameter parameter(Tensor::zeros(shapes[i], dtype));
      fill_uniform(parameter.mutable_grad(), RandomKey(500 + i), -2, 2);
      parameters.emplace_back(std::to_string(i), parameter);
    }
    const ClippingReport report = clip_gradients(parameters, clipping_of(test));
    EXPECT_TRUE(report.non_finite.empty());
    if (!test.at("norm").is_null()) {
      const double norm = test.at("norm");
      EXPECT_NEAR(report.global_norm, norm, 2 * tolerance * norm);
    }
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      const auto expected = test.at("gradients")[i].get<std::vector<double>>();
      const Tensor found = parameters[i].parameter.grad().to(DType::f64);
      for (std::size_t k = 0; k < expected.size(); ++k) {
        EXPECT_NEAR(found.data<double>()[k], expected[k], 2 * tolerance) << i << ", " << k;
      }
    }
  }
}

class ClippingTest : public ::testing::Test {
 protected:
  ClippingTest() { set_gradients(parameters_, 0); }

  StateDict gradients() const {
    StateDict copies;
    for (const auto& [name, parameter] : parameters_) {
      if (parameter.has_grad()) copies[name] = parameter.grad().clone();
    }
    return copies;
  }

  double norm() const { return clip_gradients(parameters_, {}).global_norm; }

  std::vector<NamedParameter> parameters_ = small_parameters();
  Parameter a_ = parameters_[0].parameter;
  Parameter b_ = parameters_[1].parameter;
};

TEST_F(ClippingTest, with_limits_above_everything_changes_no_bit) {
  const StateDict before = gradients();
  clip_gradients(parameters_, {.value = 100, .norm = 100, .global_norm = 100});
  clip_gradients(parameters_, {.value = infinity, .norm = infinity, .global_norm = infinity});
  EXPECT_TRUE(bit_equal(before, gradients()));
}

TEST_F(ClippingTest, applies_limits_in_their_order_and_reports_the_norm_before) {
  for (NamedParameter& named : parameters_) named.parameter.zero_grad();
  a_.mutable_grad().fill(10);  // 6 numbers
  b_.mutable_grad().fill(0.1);
  const ClippingReport report =
      clip_gradients(parameters_, {.value = 1, .norm = 2, .global_norm = 1});
  EXPECT_NEAR(report.global_norm, std::sqrt(600 + 0.04), 1e-5);
  // 10 → 1 by value → 2 / √6 by its own norm, and both times 1 / √4.04 by that of all.
  EXPECT_NEAR(a_.grad().data<float>()[0], 2 / std::sqrt(6) / std::sqrt(4.04), 2e-6);
  EXPECT_NEAR(b_.grad().data<float>()[0], 0.1 / std::sqrt(4.04), 1e-6);
}

TEST_F(ClippingTest, leaves_out_parameters_that_are_frozen_or_have_no_gradient) {
  a_.set_requires_grad(false);
  b_.zero_grad();
  a_.mutable_grad().fill(nan);
  const StateDict before = gradients();
  const ClippingReport report = clip_gradients(parameters_, {.global_norm = 0.01});
  EXPECT_TRUE(bit_equal(a_.grad(), before.at("a").as_tensor()));
  EXPECT_FALSE(b_.has_grad());
  EXPECT_NEAR(norm(), 0.01, 1e-5);
  EXPECT_TRUE(std::isfinite(report.global_norm));
}

TEST_F(ClippingTest, of_nothing_reports_a_norm_of_zero) {
  EXPECT_EQ(clip_gradients({}, {.global_norm = 1}).global_norm, 0);
  for (NamedParameter& named : parameters_) named.parameter.mutable_grad().fill(0);
  clip_gradients(parameters_, {.value = 1, .norm = 1, .global_norm = 1});
  EXPECT_EQ(norm(), 0);
}

TEST_F(ClippingTest, refuses_an_undefined_parameter_by_name_and_changes_nothing) {
  const StateDict before = gradients();
  EXPECT_TRUE(throws<StateError>(
      [&] {
        clip_gradients({parameters_[0], {"hole", Parameter()}}, {.value = 0.01});
      },
      "parameter 'hole' is undefined"));
  EXPECT_TRUE(bit_equal(before, gradients()));
}

TEST_F(ClippingTest, counts_a_parameter_under_several_names_once) {
  const ClippingReport once = clip_gradients({parameters_[0]}, {});
  const ClippingReport twice =
      clip_gradients({parameters_[0], {"alias", a_}}, {.global_norm = 0.5});
  EXPECT_EQ(once.global_norm, twice.global_norm);
  EXPECT_NEAR(clip_gradients({parameters_[0]}, {}).global_norm, 0.5, 1e-5);
}

// Says that it has measured gradients, and counts who asks.
class Measures : public autograd::GradientOwner {
 public:
  explicit Measures(std::size_t parameters) : GradientOwner(parameters) {}
  bool open(std::size_t) override { return false; }
  void complete(std::size_t) override {}
  void finish() override {}
  void abandon() noexcept override {}
  std::optional<double> sum_squares(std::size_t index) override {
    ++asked;
    return index == 0 ? std::optional<double>(16) : std::nullopt;
  }

  int asked = 0;
};

TEST_F(ClippingTest, takes_what_an_owner_has_measured_of_a_reduced_gradient_for_its_norm) {
  Measures owner(2);
  Parameter p(Tensor::full({3}, 1)), q(Tensor::full({1}, 1));
  for (Parameter* parameter : {&p, &q}) {
    const Shape shape = parameter->shape();
    parameter->rebind(Tensor::zeros(shape), Tensor::full(shape, 5), &owner, parameter == &p ? 0 : 1,
                      Tensor::full(shape, 3));
  }
  const std::vector<NamedParameter> both{{"p", p}, {"q", q}};
  for (autograd::GradientFlags& flags : owner.table()->flags) {
    flags.has_gradient = flags.requires_grad = flags.reduced = true;
  }
  EXPECT_EQ(clip_gradients(both, {}).global_norm, 5);  // √(16 + 3²)
  EXPECT_EQ(owner.asked, 2);
  EXPECT_EQ(clip_gradients(both, {.norm_type = 1}).global_norm, 12);
  EXPECT_EQ(owner.asked, 2);
  p.mutable_grad().fill(2);
  EXPECT_EQ(clip_gradients(both, {}).global_norm, std::sqrt(12 + 9));
  EXPECT_EQ(owner.asked, 3);
  for (Parameter* parameter : {&p, &q}) {
    parameter->rebind(Tensor::zeros(parameter->shape()), Tensor::zeros(parameter->shape()), nullptr,
                      0);
  }
}

// A step that clips against one after clip_gradients, by SGD without and with momentum.
void expect_step_clips(const Clipping& clipping, double scale, double tolerance) {
  std::vector<NamedParameter> in_step = small_parameters(), before_step = small_parameters();
  NamedOptimizer clips(in_step, SGD({.lr = 0.5, .momentum = 0.5}));
  NamedOptimizer plain(before_step, SGD({.lr = 0.5, .momentum = 0.5}));
  clips.set_clipping(clipping);
  for (std::uint64_t step = 0; step < 3; ++step) {
    set_gradients(in_step, step);
    set_gradients(before_step, step);
    for (NamedParameter& named : before_step) {
      Tensor& gradient = named.parameter.mutable_grad();
      gradient.copy_from((Variable(gradient.clone()) * scale).value());
    }
    const StepReport report = clips.step({.gradient_scale = scale});
    const ClippingReport expected = clip_gradients(before_step, clipping);
    EXPECT_NEAR(report.gradient_norm.value(), expected.global_norm, 1e-6 * expected.global_norm);
    plain.step();
    for (std::size_t i = 0; i < in_step.size(); ++i) {
      const Tensor found = in_step[i].parameter.value().to(DType::f64);
      const Tensor wanted = before_step[i].parameter.value().to(DType::f64);
      EXPECT_TRUE(tolerance > 0 || bit_equal(found, wanted)) << in_step[i].name;
      for (std::int64_t k = 0; k < found.size(); ++k) {
        EXPECT_NEAR(found.data<double>()[k], wanted.data<double>()[k], tolerance);
      }
    }
  }
}

TEST_F(ClippingTest, in_a_step_is_clipping_before_it) {
  for (const double scale : {1.0, 0.25, 3.0, -0.5}) {
    SCOPED_TRACE(scale);
    expect_step_clips({.value = 0.3}, scale, 1e-6);
    expect_step_clips({.norm = 0.4}, scale, 1e-6);
    expect_step_clips({.global_norm = 0.7}, scale, 1e-6);
    expect_step_clips({.value = 0.6, .norm = 0.5, .global_norm = 0.3, .norm_type = 1}, scale, 1e-6);
    expect_step_clips({.norm = 0.3, .global_norm = 0.4, .norm_type = infinity}, scale, 1e-6);
  }
}

TEST_F(ClippingTest, in_a_step_gives_the_same_bits_where_factors_are_powers_of_two) {
  expect_step_clips({.global_norm = 100}, 0.25, 0);
  expect_step_clips({.value = 0.25}, 0.5, 0);
  // A norm of 4, and a limit whose factor with the margin of 1e-6 is one half.
  const Parameter p(Tensor::full({4}, 1)), q(Tensor::full({4}, 1));
  NamedOptimizer clips({{"p", p}}, SGD({.lr = 0.3})), plain({{"q", q}}, SGD({.lr = 0.3}));
  for (Parameter parameter : {p, q}) parameter.mutable_grad().fill(2);
  const Clipping clipping{.global_norm = (4 + 1e-6) / 2};
  clips.set_clipping(clipping);
  clips.step();
  clip_gradients({{"q", q}}, clipping);
  plain.step();
  EXPECT_TRUE(bit_equal(p.value(), q.value()));
  EXPECT_TRUE(bit_equal(q.grad(), Tensor::full({4}, 1)));
}

TEST_F(ClippingTest, by_the_global_norm_in_a_step_leaves_the_gradients_themselves) {
  NamedOptimizer optimizer(parameters_, SGD());
  optimizer.set_clipping({.global_norm = 0.1});
  const StateDict before = gradients();
  optimizer.step();
  EXPECT_TRUE(bit_equal(before, gradients()));
}

TEST_F(ClippingTest, can_be_taken_away) {
  std::vector<NamedParameter> others = small_parameters();
  NamedOptimizer optimizer(parameters_, SGD()), plain(others, SGD());
  optimizer.set_clipping({.global_norm = 0.1});
  EXPECT_EQ(optimizer.clipping()->global_norm, 0.1);
  optimizer.remove_clipping();
  EXPECT_FALSE(optimizer.clipping().has_value());
  train(optimizer, parameters_, 1);
  train(plain, others, 1);
  EXPECT_TRUE(bit_equal(snapshot(optimizer, parameters_), snapshot(plain, others)));
}

TEST_F(ClippingTest, refuses_a_gradient_that_is_not_finite_by_name_and_changes_nothing) {
  NamedOptimizer optimizer(parameters_, Adam());
  train(optimizer, parameters_, 2);
  for (const double bad : {nan, infinity, -infinity}) {
    for (const double norm_type : {1.0, 2.0, 3.0, infinity}) {
      set_gradients(parameters_, 7);
      b_.mutable_grad().data<float>()[2] = static_cast<float>(bad);
      const Clipping clipping{
          .value = 0.1, .norm = 0.1, .global_norm = 0.1, .norm_type = norm_type};
      const StateDict before = gradients(), state = snapshot(optimizer, parameters_);
      optimizer.set_clipping(clipping);
      EXPECT_TRUE(throws<StateError>([&] { optimizer.step(); },
                                     "the gradient of parameter 'b' is not finite"));
      EXPECT_TRUE(throws<StateError>([&] { clip_gradients(parameters_, clipping); }, "'b'"));
      EXPECT_TRUE(bit_equal(before, gradients()));
      EXPECT_TRUE(bit_equal(state, snapshot(optimizer, parameters_)));
    }
  }
}

TEST_F(ClippingTest, skips_a_step_on_request_with_names_and_changes_nothing) {
  NamedOptimizer optimizer(parameters_, Adam());
  train(optimizer, parameters_, 2);
  for (const double norm_type : {1.0, 2.0, 3.0, infinity}) {
    set_gradients(parameters_, 7);
    a_.mutable_grad().data<float>()[5] = std::numeric_limits<float>::infinity();
    Parameter(parameters_[3].parameter).mutable_grad().data<double>()[0] = nan;
    const Clipping clipping{.value = 0.1,
                            .norm = 0.1,
                            .global_norm = 0.1,
                            .norm_type = norm_type,
                            .non_finite = NonFinite::skip};
    const StateDict before = gradients(), state = snapshot(optimizer, parameters_);
    optimizer.set_clipping(clipping);
    const StepReport step = optimizer.step();
    EXPECT_FALSE(step.applied);
    EXPECT_EQ(step.non_finite, (std::vector<std::string>{"a", "d"}));
    EXPECT_FALSE(std::isfinite(step.gradient_norm.value()));
    const ClippingReport report = clip_gradients(parameters_, clipping);
    EXPECT_EQ(report.non_finite, (std::vector<std::string>{"a", "d"}));
    EXPECT_FALSE(std::isfinite(report.global_norm));
    EXPECT_TRUE(bit_equal(before, gradients()));
    EXPECT_TRUE(bit_equal(state, snapshot(optimizer, parameters_)));
  }
  set_gradients(parameters_, 8);
  EXPECT_TRUE(optimizer.step().applied);
  EXPECT_EQ(state_of(optimizer, "a").at("step").as_int(), 3);
}

TEST_F(ClippingTest, without_limits_only_looks_for_what_is_not_finite) {
  NamedOptimizer optimizer(parameters_, SGD());
  optimizer.set_clipping({});
  const StateDict before = gradients();
  EXPECT_TRUE(optimizer.step().applied);
  EXPECT_TRUE(bit_equal(before, gradients()));
  b_.mutable_grad().fill(nan);
  EXPECT_THROW(optimizer.step(), StateError);
}

TEST_F(ClippingTest, takes_a_norm_that_overflows_for_one_that_is_not_finite) {
  // Each has a norm that is finite, and both together have not.
  const double large = std::sqrt(std::numeric_limits<double>::max()) * 0.9;
  Parameter p(Tensor::full({1}, 1, DType::f64)), q(Tensor::full({1}, 1, DType::f64));
  p.mutable_grad().fill(large);
  q.mutable_grad().fill(large);
  NamedOptimizer optimizer({{"p", p}, {"q", q}}, SGD({.momentum = 0.9}));
  optimizer.set_clipping({.global_norm = 1});
  EXPECT_TRUE(throws<StateError>([&] { optimizer.step(); }, "not finite"));
  optimizer.set_clipping({.global_norm = 1, .non_finite = NonFinite::skip});
  const StepReport report = optimizer.step();
  EXPECT_FALSE(report.applied);
  EXPECT_FALSE(report.non_finite.empty());
  EXPECT_EQ(p.value().data<double>()[0], 1);
  EXPECT_TRUE(optimizer.state_dict().at("state").as_dict().empty());
}

TEST_F(ClippingTest, of_one_parameter_by_itself_names_it) {
  NamedOptimizer optimizer(parameters_, Adam());
  optimizer.set_clipping({.norm = 0.1});
  b_.mutable_grad().fill(nan);
  EXPECT_TRUE(throws<StateError>([&] { optimizer.step_parameter(b_); },
                                 "the gradient of parameter 'b' is not finite"));
  optimizer.set_clipping({.norm = 0.1, .non_finite = NonFinite::skip});
  optimizer.step_parameter(b_);
  EXPECT_TRUE(state_of(optimizer, "b").empty());
  optimizer.step_parameter(a_);
  EXPECT_EQ(state_of(optimizer, "a").at("step").as_int(), 1);
  optimizer.set_clipping({.global_norm = 0.1});
  EXPECT_TRUE(throws<OptionError>([&] { optimizer.step_parameter(a_); }, "global norm"));
}

TEST_F(ClippingTest, of_a_stranger_by_itself_is_refused_before_its_gradient_changes) {
  NamedOptimizer optimizer(parameters_, SGD());
  Parameter stranger(Tensor::zeros({2}));
  stranger.mutable_grad().fill(5);
  for (const bool clips : {false, true}) {
    if (clips) optimizer.set_clipping({.value = 0.1});
    EXPECT_TRUE(throws<NameError>([&] { optimizer.step_parameter(stranger); },
                                  "no param group has the parameter of shape (2)"));
    EXPECT_TRUE(bit_equal(stranger.grad(), Tensor::full({2}, 5)));
  }
}

TEST_F(ClippingTest, refuses_each_option_outside_its_range_by_name) {
  NamedOptimizer optimizer(parameters_, SGD());
  optimizer.set_clipping({.value = 5});
  const StateDict before = gradients();
  const auto refused = [&](const Clipping& clipping, const char* message) {
    EXPECT_TRUE(throws<OptionError>([&] { optimizer.set_clipping(clipping); }, message));
    return throws<OptionError>([&] { clip_gradients(parameters_, clipping); }, message);
  };
  for (const double bad : {0.0, -1.0, nan}) {
    EXPECT_TRUE(refused({.value = bad}, "clipping: expected value > 0"));
    EXPECT_TRUE(refused({.norm = bad}, "clipping: expected norm > 0"));
    EXPECT_TRUE(refused({.global_norm = bad}, "clipping: expected global_norm > 0"));
  }
  EXPECT_TRUE(refused({.norm_type = 0.5}, "clipping: expected norm_type >= 1, found 0.5"));
  EXPECT_TRUE(refused({.norm_type = nan}, "clipping: expected norm_type >= 1"));
  EXPECT_EQ(optimizer.clipping()->value, 5);
  EXPECT_TRUE(bit_equal(before, gradients()));
}

}  // namespace clipping_test
}  // namespace lockstep
