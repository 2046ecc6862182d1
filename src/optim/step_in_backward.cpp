#include "lockstep/optim/step_in_backward.hpp"

#include <fmt/format.h>

#include <map>
#include <set>

#include "autograd/state.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep {
namespace {

bool& steps_in_backward(const Parameter& parameter) {
  return autograd::VariableState::of(parameter)->parameter->steps_in_backward;
}

}  // namespace

StepInBackward::StepInBackward(Optimizers optimizers, const StepOptions& options) {
  struct Plan {
    Parameter parameter;
    Optimizers optimizers;
  };
  if (optimizers.empty()) throw OptionError("a step in backward got no optimizers");
  std::map<const void*, Plan> plans;
  std::set<const KeyedOptimizer*> known;
  for (KeyedOptimizer& optimizer : optimizers) {
    if (!known.insert(&optimizer).second) {
      throw OptionError("a step in backward got the same optimizer twice");
    }
    optimizer.check_step();
    if (optimizer.clipping() && optimizer.clipping()->global_norm) {
      throw OptionError("a step in backward cannot clip by the global norm");
    }
    optimizer.visit_parameters([&](const NamedParameter& named) {
      if (steps_in_backward(named.parameter)) {
        throw StateError(fmt::format("parameter '{}' is stepped in backward already", named.name));
      }
      Plan& plan = plans[named.parameter.identity()];
      plan.parameter = named.parameter;
      // An optimizer that is several ones steps the parameter in all of them.
      if (plan.optimizers.empty() || &plan.optimizers.back().get() != &optimizer) {
        plan.optimizers.push_back(optimizer);
      }
    });
  }
  hooks_.reserve(plans.size());
  for (auto& [identity, plan] : plans) {
    const auto hook = [optimizers = std::move(plan.optimizers),
                       options](const Parameter& parameter) {
      for (KeyedOptimizer& optimizer : optimizers) optimizer.step_parameter(parameter, options);
      Parameter(parameter).release_grad();
    };
    hooks_.emplace_back(plan.parameter, plan.parameter.register_final_hook(hook));
    steps_in_backward(plan.parameter) = true;
  }
}

StepInBackward::~StepInBackward() {
  for (auto& [parameter, handle] : hooks_) {
    parameter.remove_hook(handle);
    steps_in_backward(parameter) = false;
  }
}

}  // namespace lockstep
