#include "lockstep/optim/keyed_optimizer.hpp"

#include <algorithm>

namespace lockstep {

ParamGroup::ParamGroup(std::vector<NamedParameter> parameters,
                       std::unique_ptr<optim::UpdateRule> rule)
    : parameters_(std::move(parameters)), rule_(std::move(rule)) {}

std::vector<std::string> ParamGroup::names() const {
  std::vector<std::string> names;
  for (const NamedParameter& named : parameters_) names.push_back(named.name);
  std::sort(names.begin(), names.end());
  return names;
}

StateDict ParamGroup::state_dict() const {
  StateDict state = rule_->options();
  StateList names;
  for (std::string& name : this->names()) names.emplace_back(std::move(name));
  state["params"] = std::move(names);
  return state;
}

}  // namespace lockstep
