#include <cstdint>
#include <utility>
#include <vector>

#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "optim/default_rules.hpp"
#include "optim/small_parameters.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace update_rule_gradients_test {

using namespace testing;

// Every rule by default, and with all that it can do to a gradient before it uses it.
Rules rules_with_and_without_extras() {
  Rules rules = default_rules();
  for (auto& rule : default_rules()) {
    const StateDict fields = rule->options();
    for (const auto& [name, value] : StateDict{{"weight_decay", 0.1},
                                               {"momentum", 0.5},
                                               {"centered", true},
                                               {"amsgrad", true},
                                               {"nesterov", true},
                                               {"t0", 1.0}}) {
      if (fields.contains(name)) rule->set({{name, value}, {"lr", 0.25}});
    }
    rules.push_back(std::move(rule));
  }
  return rules;
}

// Six steps, of gradients that are multiplied by `factor` first.
StateDict trained_with(const optim::UpdateRule& rule, double factor, const StepOptions& options) {
  const std::vector<NamedParameter> parameters = small_parameters();
  NamedOptimizer optimizer(parameters, rule);
  for (std::uint64_t step = 0; step < 6; ++step) {
    set_gradients(parameters, step);
    for (const auto& named : parameters) {
      Parameter parameter = named.parameter;
      Tensor scaled_gradient = parameter.grad().to(DType::f64);
      for (double& number : scaled_gradient.span<double>()) number *= factor;
      parameter.mutable_grad().copy_from(scaled_gradient.to(parameter.dtype()));
    }
    optimizer.step(options);
  }
  return snapshot(optimizer, parameters);
}

StateDict without_groups(StateDict snapshot) {
  snapshot["optimizer"].as_dict()["param_groups"] = StateDict();
  return snapshot;
}

TEST(EveryRule, that_maximizes_takes_the_opposite_gradient) {
  for (const auto& rule : rules_with_and_without_extras()) {
    const StateDict down = trained_with(*rule, -1, {});
    rule->set({{"maximize", true}});
    const StateDict up = trained_with(*rule, 1, {});
    EXPECT_TRUE(bit_equal(without_groups(down), without_groups(up))) << rule->name();
  }
}

TEST(EveryRule, multiplies_the_gradient_by_the_scale_of_the_step) {
  for (const auto& rule : rules_with_and_without_extras()) {
    for (const bool maximize : {false, true}) {
      rule->set({{"maximize", maximize}});
      for (const double scale : {0.5, 8.0, -2.0}) {
        EXPECT_TRUE(bit_equal(trained_with(*rule, scale, {}),
                              trained_with(*rule, 1, {.gradient_scale = scale})))
            << rule->name() << ' ' << scale;
      }
    }
  }
}

}  // namespace update_rule_gradients_test
}  // namespace lockstep
