#include "lockstep/optim/step_in_backward.hpp"

#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "lockstep/autograd/activations.hpp"
#include "lockstep/autograd/operations.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/core/log.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/combined_optimizer.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/parallel/data_parallel.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "optim/dummy_model.hpp"
#include "optim/small_parameters.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 4);

namespace lockstep {
namespace step_in_backward_test {

using namespace testing;
using optim::Adam;
using optim::NonFinite;
using optim::SGD;

enum class Reduction { none, reducer, data_parallel, in_parts };

struct Rows {
  Tensor inputs;
  std::int64_t size() const { return inputs.shape()[0]; }
  Rows slice(std::int64_t begin, std::int64_t end) const { return {inputs.rows(begin, end)}; }
};

StateDict train_model(const optim::UpdateRule& rule, Reduction reduction, bool in_backward) {
  DummyModel model;
  std::optional<GradientReducer> reducer;
  std::optional<DataParallel> replica;
  if (reduction == Reduction::reducer) reducer.emplace(model.named_parameters(), world());
  NamedOptimizer optimizer(model.named_parameters(), rule);
  std::optional<StepInBackward> steps;
  if (in_backward) steps.emplace(StepInBackward::Optimizers{optimizer});
  // After the hooks are there, so that the layout changes under them.
  if (reduction >= Reduction::data_parallel) replica.emplace(model, world());
  for (int i = 1; i <= 4; ++i) {
    model.net2.set_requires_grad(i != 2);
    const int rank = reduction == Reduction::none ? 0 : world().rank();
    // Of uneven numbers of rows where these are weighted, and none on one rank.
    const std::int64_t rows = !replica ? 5 : i == 3 && rank > 0 ? 0 : 5 - rank;
    const Rows batch{dummy_batch(i, rank).rows(0, rows)};
    if (replica) {
      replica->backward(batch, [&](const Rows& rows) { return mean(model(rows.inputs)); },
                        {.parts = reduction == Reduction::in_parts ? 2 : 1});
    } else {
      mean(model(batch.inputs)).backward();
    }
    if (in_backward) {
      for (const NamedParameter& named : model.named_parameters()) {
        EXPECT_FALSE(named.parameter.has_grad()) << named.name;
      }
    } else {
      optimizer.step();
      optimizer.zero_grad();
    }
  }
  return snapshot(optimizer, model.named_parameters());
}

TEST(StepInBackward, gives_the_bits_of_a_step_after_backward) {
  for (const Reduction reduction :
       {Reduction::none, Reduction::reducer, Reduction::data_parallel, Reduction::in_parts}) {
    SCOPED_TRACE(static_cast<int>(reduction));
    const auto same = [reduction](const optim::UpdateRule& rule) {
      return bit_equal(train_model(rule, reduction, true), train_model(rule, reduction, false));
    };
    EXPECT_TRUE(same(SGD({.lr = 0.1})));
    EXPECT_TRUE(same(SGD({.lr = 0.1, .momentum = 0.9, .dampening = 0.5})));
    EXPECT_TRUE(same(Adam({.lr = 0.1, .weight_decay = 0.1})));
  }
}

class InBackward : public ::testing::Test {
 protected:
  static float value(const Parameter& parameter) { return parameter.value().data<float>()[0]; }

  Parameter p_{Tensor::full({4}, 8)}, q_{Tensor::full({4}, 8)};
  NamedOptimizer of_p_{{{"p", p_}}, SGD({.lr = 1})};
  NamedOptimizer of_both_{{{"p", p_}, {"q", q_}}, SGD({.lr = 2})};
};

TEST_F(InBackward, gradients_are_gone_and_their_memory_too) {
  const StepInBackward steps({of_both_});
  sum(p_ + q_).backward();
  for (const Parameter& parameter : {p_, q_}) {
    EXPECT_FALSE(parameter.has_grad());
    EXPECT_EQ(value(parameter), 6);
  }
  p_.set_has_grad(true);
  EXPECT_FALSE(p_.grad().defined());
  p_.set_has_grad(false);
  sum(p_).backward();
  EXPECT_EQ(value(p_), 4);
}

TEST_F(InBackward, gradients_of_a_reducer_keep_their_place) {
  const GradientReducer reducer({{"p", p_}, {"q", q_}}, world());
  const StepInBackward steps({of_both_});
  sum(p_ + q_).backward();
  p_.set_has_grad(true);
  const void* address = p_.grad().raw();
  p_.set_has_grad(false);
  sum(p_ + q_).backward();
  p_.set_has_grad(true);
  EXPECT_EQ(address, p_.grad().raw());
  EXPECT_EQ(value(p_), 4);
}

TEST_F(InBackward, a_parameter_is_stepped_as_soon_as_its_gradient_is_final) {
  // y = relu(p) · q: when q is complete, p has not been reached.
  const StepInBackward steps({of_both_});
  std::vector<float> seen;
  const Variable hidden = relu(p_ * 1.0);
  const Variable watched =
      autograd::record(hidden.value(), {hidden}, [&](const Tensor& gradient, auto inputs) {
        seen = {value(p_), value(q_)};
        inputs[0].pass(gradient);
      });
  sum(watched * q_).backward();
  EXPECT_EQ(seen, (std::vector<float>{8, 8 - 2 * 8}));
  EXPECT_EQ(value(p_), 8 - 2 * 8);  // by the q of the forward pass
}

TEST_F(InBackward, a_parameter_used_twice_is_stepped_once_by_its_whole_gradient) {
  NamedOptimizer adam({{"p", p_}}, Adam());
  const StepInBackward steps({adam});
  sum(p_ * 2.0 + relu(p_) * 3.0).backward();
  EXPECT_EQ(state_of(adam, "p").at("step").as_int(), 1);
  EXPECT_FLOAT_EQ(state_of(adam, "p").at("exp_avg").as_tensor().data<float>()[0], 0.5F);
}

TEST_F(InBackward, a_module_shared_by_two_parents_is_stepped_once) {
  nn::Linear shared(2, 2);
  shared.initialize(1);
  NamedOptimizer adam(shared.named_parameters(), Adam());
  const StepInBackward steps({adam});
  sum(shared(shared(Variable(Tensor::full({3, 2}, 0.5))))).backward();
  EXPECT_EQ(state_of(adam, "weight").at("step").as_int(), 1);
  EXPECT_EQ(state_of(adam, "bias").at("step").as_int(), 1);
}

TEST_F(InBackward, several_optimizers_step_a_parameter_in_their_order) {
  // Of p: by 1 first, and then by half of what is left; the other order gives something else.
  const NamedParameter named("p", p_);
  NamedOptimizer by_one({named}, SGD({.lr = 1}));
  NamedOptimizer by_half({named}, SGD({.lr = 1, .weight_decay = 0.5}));
  {
    const StepInBackward steps({by_one, by_half});
    sum(p_).backward();
    EXPECT_EQ(value(p_), 7 - (1 + 3.5F));
  }
  p_.mutable_value().fill(8);
  const StepInBackward steps({by_half, by_one});
  sum(p_).backward();
  EXPECT_EQ(value(p_), 8 - (1 + 4) - 1);
}

TEST_F(InBackward, optimizers_step_what_they_have_alone) {
  const StepInBackward steps({of_p_, of_both_});
  sum(p_ + q_).backward();
  EXPECT_EQ(value(p_), 8 - 1 - 2);
  EXPECT_EQ(value(q_), 8 - 2);
}

TEST_F(InBackward, an_optimizer_that_is_listed_twice_is_refused) {
  EXPECT_TRUE(throws<OptionError>([&] { StepInBackward({of_p_, of_both_, of_p_}); }, "twice"));
  sum(p_).backward();
  EXPECT_EQ(value(p_), 8);
}

TEST_F(InBackward, members_of_a_combined_optimizer_step_a_parameter_once_each) {
  CombinedOptimizer combined({{"one", of_p_}, {"two", of_both_}});
  const StepInBackward steps({combined});
  sum(p_).backward();
  EXPECT_EQ(value(p_), 8 - 1 - 2);
}

TEST_F(InBackward, a_parameter_in_no_group_is_left_with_its_gradient) {
  set_log_callback([](LogLevel, std::string_view) {});
  NamedOptimizer some({{"p", p_}, {"q", q_}}, SGD({.lr = 1}), {{.params = p_}});
  set_log_callback({});
  const StepInBackward steps({some});
  sum(p_ + q_ * 3.0).backward();
  EXPECT_EQ(value(p_), 7);
  EXPECT_EQ(value(q_), 8);
  EXPECT_TRUE(bit_equal(q_.grad(), Tensor::full({4}, 3)));
}

TEST_F(InBackward, a_parameter_that_a_backward_does_not_reach_is_left_alone) {
  NamedOptimizer adam({{"p", p_}, {"q", q_}}, Adam());
  const StepInBackward steps({adam});
  sum(p_).backward();
  EXPECT_EQ(value(q_), 8);
  EXPECT_TRUE(state_of(adam, "q").empty());
  p_.set_requires_grad(false);
  const float before = value(p_);
  sum(p_ + q_).backward();
  EXPECT_EQ(value(p_), before);
  EXPECT_EQ(state_of(adam, "p").at("step").as_int(), 1);
  EXPECT_EQ(state_of(adam, "q").at("step").as_int(), 1);
}

TEST_F(InBackward, a_parameter_reached_on_one_rank_is_stepped_on_all) {
  const GradientReducer reducer({{"p", p_}, {"q", q_}}, world());
  const StepInBackward steps({of_both_});
  const bool last = world().rank() == world().size() - 1;
  (last ? sum(p_ + q_) : sum(q_)).backward();
  EXPECT_EQ(value(p_), 8 - 2.0F / static_cast<float>(world().size()));
  EXPECT_EQ(value(q_), 6);
}

TEST_F(InBackward, ends_with_its_object) {
  {
    const StepInBackward steps({of_both_});
    sum(p_).backward();
  }
  EXPECT_EQ(value(p_), 6);
  sum(p_).backward();
  EXPECT_EQ(value(p_), 6);
  EXPECT_TRUE(p_.has_grad());
  of_both_.step();
  EXPECT_EQ(value(p_), 4);
  const StepInBackward again({of_both_});
  p_.zero_grad();
  sum(p_).backward();
  EXPECT_EQ(value(p_), 2);
}

TEST_F(InBackward, a_second_one_for_a_parameter_is_refused_and_leaves_no_hook) {
  const StepInBackward steps({of_p_});
  EXPECT_TRUE(throws<StateError>([&] { StepInBackward({of_both_}); },
                                 "parameter 'p' is stepped in backward already"));
  sum(p_ + q_).backward();
  EXPECT_EQ(value(p_), 7);
  EXPECT_EQ(value(q_), 8);
}

TEST_F(InBackward, clipping_by_the_global_norm_is_refused) {
  of_p_.set_clipping({.global_norm = 1});
  EXPECT_TRUE(throws<OptionError>([&] { StepInBackward({of_both_, of_p_}); }, "global norm"));
  of_p_.remove_clipping();
  const StepInBackward steps({of_p_});
  of_p_.set_clipping({.global_norm = 1});
  EXPECT_TRUE(throws<OptionError>([&] { sum(p_).backward(); }, "global norm"));
  EXPECT_EQ(value(p_), 8);
}

TEST_F(InBackward, clipping_in_a_member_of_a_combined_optimizer_is_refused) {
  CombinedOptimizer combined({{"one", of_p_}});
  of_p_.set_clipping({.norm = 1});
  EXPECT_TRUE(throws<StateError>([&] { StepInBackward({combined}); }, "clips gradients by itself"));
}

TEST_F(InBackward, nothing_to_step_is_refused) {
  EXPECT_TRUE(throws<OptionError>([] { StepInBackward({}); }, "no optimizers"));
}

TEST_F(InBackward, clipping_of_each_parameter_applies) {
  of_both_.set_clipping({.norm = 1});
  const StepInBackward steps({of_both_});
  sum(p_).backward();  // norm 2
  EXPECT_NEAR(value(p_), 8 - 2 * 0.5, 1e-5);
}

TEST_F(InBackward, a_gradient_that_is_not_finite_is_an_error_or_skipped_as_chosen) {
  of_both_.set_clipping({});
  const StepInBackward steps({of_both_});
  EXPECT_TRUE(throws<StateError>([&] { sum(p_ * std::nan("")).backward(); },
                                 "the gradient of parameter 'p' is not finite"));
  EXPECT_EQ(value(p_), 8);
  p_.zero_grad();
  of_both_.set_clipping({.non_finite = NonFinite::skip});
  sum(p_ * std::nan("") + q_).backward();
  EXPECT_EQ(value(p_), 8);
  EXPECT_EQ(value(q_), 6);
  EXPECT_FALSE(p_.has_grad());
  sum(p_).backward();
  EXPECT_EQ(value(p_), 6);
}

TEST_F(InBackward, a_gradient_that_is_not_finite_on_one_rank_is_an_error_on_all) {
  const GradientReducer reducer({{"p", p_}, {"q", q_}}, world());
  of_both_.set_clipping({});
  const StepInBackward steps({of_both_});
  const bool last = world().rank() == world().size() - 1;
  EXPECT_TRUE(throws<StateError>([&] { sum(p_ * (last ? std::nan("") : 1.0)).backward(); },
                                 "the gradient of parameter 'p' is not finite"));
  EXPECT_EQ(value(p_), 8);
  of_both_.zero_grad();
  sum(p_ + q_).backward();
  EXPECT_EQ(value(p_), 6);
  EXPECT_EQ(value(q_), 6);
}

TEST_F(InBackward, hooks_of_gradients_come_first_and_final_ones_in_their_order) {
  std::string calls;
  p_.register_final_hook([&](const Parameter& p) { calls += value(p) == 8 ? 'b' : '?'; });
  const StepInBackward steps({of_p_});
  p_.register_final_hook([&](const Parameter& p) { calls += value(p) == 7 ? 'c' : '?'; });
  p_.register_hook([&](const Parameter& p) { calls += value(p) == 8 && p.has_grad() ? 'a' : '?'; });
  of_p_.before_step([&](KeyedOptimizer&) { calls += '!'; });
  sum(p_).backward();
  EXPECT_EQ(calls, "abc");
}

TEST_F(InBackward, the_engine_is_usable_after_a_hook_that_threw) {
  const std::int64_t bad = p_.register_final_hook([](const Parameter&) { throw DataError("no"); });
  const StepInBackward steps({of_both_});
  EXPECT_THROW(sum(p_).backward(), DataError);
  p_.remove_hook(bad);
  p_.zero_grad();
  sum(p_).backward();
  EXPECT_EQ(value(p_), 6);
}

TEST_F(InBackward, groups_that_are_added_later_are_not_stepped) {
  set_log_callback([](LogLevel, std::string_view) {});
  NamedOptimizer some({{"p", p_}, {"q", q_}}, SGD({.lr = 1}), {{.params = p_}});
  set_log_callback({});
  const StepInBackward steps({some});
  some.add_param_group({.params = q_});
  sum(p_ + q_).backward();
  EXPECT_EQ(value(q_), 8);
  some.step();
  EXPECT_EQ(value(q_), 7);
  EXPECT_EQ(value(p_), 7);
}

TEST(StepInBackward, scales_gradients_as_a_step_does) {
  const auto trained = [](bool in_backward) {
    Parameter x("x", Tensor::full({3}, 2));
    NamedOptimizer optimizer({x}, SGD({.lr = 0.25}));
    std::optional<StepInBackward> steps;
    if (in_backward) steps.emplace(StepInBackward::Optimizers{optimizer}, StepOptions{0.5});
    sum(x * x).backward();
    if (!in_backward) optimizer.step({.gradient_scale = 0.5});
    return x.value();
  };
  EXPECT_TRUE(bit_equal(trained(true), trained(false)));
  EXPECT_EQ(trained(true).data<float>()[0], 2 - 0.25 * 0.5 * 4);
}

}  // namespace step_in_backward_test
}  // namespace lockstep
