// What a step of a CombinedOptimizer does: clipping, hooks, and optimizers that share parameters.

#include <cmath>
#include <string>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/combined_optimizer.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "optim/small_parameters.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace combined_step_test {

using namespace testing;
using optim::Adam;
using optim::NonFinite;
using optim::SGD;
using Names = std::vector<std::string>;

class CombinedStep : public ::testing::Test {
 protected:
  StateDict everything() const {
    StateDict all = snapshot(combined_, parameters_);
    for (const auto& [name, parameter] : parameters_) {
      if (parameter.has_grad()) all["gradient of " + name] = parameter.grad().clone();
    }
    return all;
  }

  std::vector<NamedParameter> parameters_ = small_parameters();
  NamedOptimizer adam_{{parameters_[0], parameters_[1]}, Adam({.lr = 0.1})};
  NamedOptimizer sgd_{{parameters_[2], parameters_[3]}, SGD({.lr = 0.2, .momentum = 0.9})};
  CombinedOptimizer combined_{{{"dense", adam_}, {"rest", sgd_}}};
};

TEST_F(CombinedStep, clips_by_the_norm_over_all_members) {
  std::vector<NamedParameter> others = small_parameters();
  NamedOptimizer adam({others[0], others[1]}, Adam({.lr = 0.1}));
  NamedOptimizer sgd({others[2], others[3]}, SGD({.lr = 0.2, .momentum = 0.9}));
  combined_.set_clipping({.global_norm = 0.5});
  for (std::uint64_t step = 0; step < 3; ++step) {
    set_gradients(parameters_, step);
    set_gradients(others, step);
    const StepReport report = combined_.step();
    const double norm = optim::clip_gradients(others, {.global_norm = 0.5}).global_norm;
    EXPECT_DOUBLE_EQ(report.gradient_norm.value(), norm);
    adam.step();
    sgd.step();
  }
  for (std::size_t i = 0; i < others.size(); ++i) {
    const Tensor found = parameters_[i].parameter.value().to(DType::f64);
    const Tensor expected = others[i].parameter.value().to(DType::f64);
    for (std::int64_t k = 0; k < found.size(); ++k) {
      EXPECT_NEAR(found.data<double>()[k], expected.data<double>()[k], 1e-6);
    }
  }
}

TEST_F(CombinedStep, that_is_refused_or_skipped_changes_no_member) {
  combined_.set_clipping({.value = 0.1, .global_norm = 0.5});
  train(combined_, parameters_, 1);
  set_gradients(parameters_, 1);
  Parameter(parameters_[3].parameter).mutable_grad().fill(std::nan(""));
  const StateDict before = everything();
  EXPECT_TRUE(throws<StateError>([&] { combined_.step(); }, "parameter 'rest.d' is not finite"));
  combined_.set_clipping({.value = 0.1, .non_finite = NonFinite::skip});
  std::string calls;
  adam_.before_step([&](KeyedOptimizer&) { calls += 'b'; });
  EXPECT_EQ(combined_.step().non_finite, Names{"rest.d"});
  EXPECT_EQ(calls, "");
  EXPECT_TRUE(bit_equal(before, everything()));
}

TEST_F(CombinedStep, refuses_clipping_of_a_member_before_anything_changes) {
  NamedOptimizer first({{"e", Parameter(drawn(8, {2}))}}, SGD());
  CombinedOptimizer outer({{"x", first}, {"in", combined_}});
  outer.set_clipping({.value = 0.01});
  const std::vector<NamedParameter> extra = first.named_parameters();
  set_gradients(parameters_, 0);
  set_gradients(extra, 1);
  sgd_.set_clipping({.norm = 1});
  std::string calls;
  outer.before_step([&](KeyedOptimizer&) { calls += 'b'; });
  const StateDict before = everything();
  const Tensor value = extra[0].parameter.value().clone(), grad = extra[0].parameter.grad().clone();
  EXPECT_TRUE(
      throws<StateError>([&] { outer.step(); }, "optimizer 'rest'", "clips gradients by itself"));
  EXPECT_TRUE(throws<StateError>([&] { outer.step_parameter(parameters_[0].parameter); },
                                 "clips gradients by itself"));
  EXPECT_EQ(calls, "");
  EXPECT_TRUE(bit_equal(before, everything()));
  EXPECT_TRUE(bit_equal(value, extra[0].parameter.value()));
  EXPECT_TRUE(bit_equal(grad, extra[0].parameter.grad()));
  sgd_.remove_clipping();
  outer.step();
  EXPECT_EQ(calls, "b");
}

TEST_F(CombinedStep, has_the_hooks_of_its_members_within_its_own) {
  std::string calls;
  const auto hook = [&calls](KeyedOptimizer& optimizer, char before, char after) {
    optimizer.before_step([&calls, before](KeyedOptimizer&) { calls += before; });
    optimizer.after_step([&calls, after](KeyedOptimizer&, const StepReport&) { calls += after; });
  };
  hook(adam_, 'a', 'b');
  hook(sgd_, 'c', 'd');
  hook(combined_, '(', ')');
  combined_.step();
  EXPECT_EQ(calls, "(abcd)");
}

TEST_F(CombinedStep, hands_the_gradient_scale_down) {
  std::vector<NamedParameter> others = small_parameters();
  NamedOptimizer sgd({others[2], others[3]}, SGD({.lr = 0.2, .momentum = 0.9}));
  set_gradients(parameters_, 0);
  set_gradients(others, 0);
  combined_.step({.gradient_scale = 0.25});
  sgd.step({.gradient_scale = 0.25});
  for (const std::size_t i : {std::size_t{2}, std::size_t{3}}) {
    EXPECT_TRUE(bit_equal(parameters_[i].parameter.value(), others[i].parameter.value()));
  }
}

TEST_F(CombinedStep, zero_grad_reaches_all_members) {
  set_gradients(parameters_, 0);
  combined_.zero_grad(false);
  for (const auto& [name, parameter] : parameters_) {
    EXPECT_TRUE(bit_equal(parameter.grad(), Tensor::zeros(parameter.shape(), parameter.dtype())));
  }
  combined_.zero_grad();
  for (const auto& [name, parameter] : parameters_) EXPECT_FALSE(parameter.has_grad());
}

TEST_F(CombinedStep, of_one_parameter_steps_it_in_each_member_that_has_it) {
  const Parameter p(Tensor::full({2}, 8));
  NamedOptimizer one({{"p", p}}, SGD({.lr = 1})), two({{"p", p}}, SGD({.lr = 2}));
  CombinedOptimizer both({{"one", one}, {"two", two}});
  Parameter(p).mutable_grad().fill(1);
  both.step_parameter(p);
  EXPECT_EQ(p.value().data<float>()[0], 5);
  both.step();
  EXPECT_EQ(p.value().data<float>()[0], 2);
  EXPECT_TRUE(throws<NameError>([&] { both.step_parameter(Parameter(Tensor::zeros({3}))); },
                                "no param group has the parameter of shape (3)"));
  EXPECT_TRUE(throws<NameError>([&] { both.step_parameter(Parameter()); }, "undefined"));
}

TEST_F(CombinedStep, counts_a_parameter_of_several_members_once_in_the_norm) {
  const Parameter p(Tensor::full({4}, 1));
  NamedOptimizer one({{"p", p}}, SGD({.lr = 0.1})), two({{"p", p}}, SGD({.lr = 0.1}));
  CombinedOptimizer both({{"one", one}, {"two", two}});
  both.set_clipping({.global_norm = 1});
  Parameter(p).mutable_grad().fill(0.5);
  EXPECT_EQ(both.step().gradient_norm, 1);
  EXPECT_FLOAT_EQ(p.value().data<float>()[0], 0.9F);
}

TEST_F(CombinedStep, of_a_closure_calls_it_once) {
  int calls = 0;
  EXPECT_EQ(combined_.step([&] {
    ++calls;
    set_gradients(parameters_, 0);
    return 2.5;
  }),
            2.5);
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(state_of(combined_, "dense.a").at("step").as_int(), 1);
}

}  // namespace combined_step_test
}  // namespace lockstep
