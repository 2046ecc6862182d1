#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "bindings/call.hpp"
#include "lockstep/bindings/optimizer.h"
#include "lockstep/optim/keyed_optimizer.hpp"
#include "lockstep/optim/update_rule.hpp"

namespace lockstep::bindings {

struct OptimizerObject : ObjectOf<OptimizerObject> {
  static constexpr std::string_view name = "optimizer";

  explicit OptimizerObject(std::unique_ptr<KeyedOptimizer> made) : optimizer(std::move(made)) {}
  Stateful* state() noexcept override { return optimizer.get(); }

  std::vector<std::shared_ptr<OptimizerObject>> members = {};  // of one that combines them
  std::unique_ptr<KeyedOptimizer> optimizer;
};

/// OptionError for options of a step that are unknown or out of range.
StepOptions step_options_of(const lockstep_option* options);

/// A rule of the caller's. OptionError or NameError for a definition that is none.
std::unique_ptr<optim::UpdateRule> custom_rule(const lockstep_rule* definition);

}  // namespace lockstep::bindings
