#include <fmt/format.h>

#include <cmath>
#include <set>
#include <utility>

#include "lockstep/core/error.hpp"
#include "lockstep/optim/lbfgs.hpp"
#include "state/loading.hpp"

namespace lockstep::optim {

struct LBFGS::LoadPlan {
  Search search;
  StateDict fields;
  LoadReport report;
};

StateDict LBFGS::state_dict() const {
  StateDict states;
  for (std::size_t i = 0; i < search_.direction.size(); ++i) {
    StateList gradient_changes, value_changes;
    for (const Pair& pair : search_.history) {
      gradient_changes.emplace_back(pair.gradient_change[i]);
      value_changes.emplace_back(pair.value_change[i]);
    }
    states[parameters()[i].name] = StateDict{{"direction", search_.direction[i]},
                                             {"previous_gradient", search_.previous_gradient[i]},
                                             {"gradient_changes", std::move(gradient_changes)},
                                             {"value_changes", std::move(value_changes)}};
  }
  StateList inverse_products;
  for (const Pair& pair : search_.history) inverse_products.emplace_back(pair.inverse_product);
  return {{"rule", "LBFGS"},
          {"state", std::move(states)},
          {"search", StateDict{{"iterations", search_.iterations},
                               {"evaluations", search_.evaluations},
                               {"step_size", search_.step_size},
                               {"scale", search_.scale},
                               {"loss", search_.loss},
                               {"inverse_products", std::move(inverse_products)}}},
          {"param_groups", StateList{groups_.front().state_dict()}}};
}

LBFGS::LoadPlan LBFGS::plan_load(const StateDict& source, const LoadOptions& options) const {
  if (!options.prefix.empty()) {
    throw OptionError("LBFGS loads the state of all parameters at once: a prefix cannot be used");
  }
  if (source.contains("rule") && source.at("rule").as_string() != "LBFGS") {
    throw StateError(
        fmt::format("the state is of {}, this optimizer is LBFGS", source.at("rule").as_string()));
  }
  const auto name_here = [&](const std::string& name) {
    const std::string renamed = options.rename(name);
    const auto alias = aliases_.find(renamed);
    return alias == aliases_.end() ? renamed : alias->second;
  };
  LoadPlan plan;
  const StateList& groups = source.at("param_groups").as_list();
  if (groups.size() != 1) {
    throw StateError(fmt::format("the state has {} param groups, this optimizer 1", groups.size()));
  }
  std::set<std::string> names, found_names;
  for (const StateValue& name : groups.front().as_dict().at("params").as_list()) {
    found_names.insert(name_here(name.as_string()));
  }
  for (const NamedParameter& named : parameters()) {
    if (!found_names.contains(named.name)) {
      throw StateError(fmt::format("the state lacks parameter '{}'", named.name));
    }
    names.insert(named.name);
    plan.report.loaded.push_back(named.name);
  }
  for (const std::string& name : found_names) {
    if (!names.contains(name)) plan.report.unexpected.push_back(name);
  }
  if (options.strict) check_strict(plan.report);
  for (const auto& [name, value] : groups_.front().hyper_parameters().options()) {
    plan.fields[name] = groups.front().as_dict().at(name);
  }
  LBFGS trial(parameters());
  trial.groups_.front().set(plan.fields);

  std::map<std::string, const StateDict*> states;
  for (const auto& [name, value] : source.at("state").as_dict()) {
    const auto [known, added] = states.emplace(name_here(name), &value.as_dict());
    if (!added && !bit_equal(*known->second, value.as_dict())) {
      throw StateError(
          fmt::format("two parameters of the state dict are '{}' here, and differ", known->first));
    }
  }
  const StateDict& search = source.at("search").as_dict();
  const auto finite = [](const char* name, const StateValue& found) {
    const double value = found.as_double();
    if (!std::isfinite(value)) {
      throw StateError(fmt::format("the state's {} is {}: expected a finite number", name, value));
    }
    return value;
  };
  plan.search.iterations = search.at("iterations").as_int();
  plan.search.evaluations = search.at("evaluations").as_int();
  if (plan.search.iterations < 0 || plan.search.evaluations < 0) {
    throw StateError("the state's counts of iterations and evaluations must not be negative");
  }
  plan.search.step_size = finite("step_size", search.at("step_size"));
  plan.search.scale = finite("scale", search.at("scale"));
  plan.search.loss = finite("loss", search.at("loss"));
  for (const StateValue& value : search.at("inverse_products").as_list()) {
    plan.search.history.push_back({.gradient_change = {},
                                   .value_change = {},
                                   .inverse_product = finite("inverse_products", value)});
  }
  if (plan.search.iterations == 0) return plan;

  for (const NamedParameter& named : parameters()) {
    if (!states.contains(named.name)) {
      throw StateError(fmt::format("the state has none of parameter '{}'", named.name));
    }
    const StateDict& state = *states.at(named.name);
    const auto take = [&](const StateValue& value, const char* what) {
      Tensor tensor = value.as_tensor();
      const std::string description = fmt::format("state {} of parameter {}", what, named.name);
      if (options.convert_dtype && is_floating(tensor.dtype())) {
        tensor = converted(tensor, named.parameter.dtype(), description);
      }
      check_same(named.parameter.value(), tensor, description.c_str());
      return tensor.clone();
    };
    plan.search.direction.push_back(take(state.at("direction"), "direction"));
    plan.search.previous_gradient.push_back(
        take(state.at("previous_gradient"), "previous_gradient"));
    const StateList& gradient_changes = state.at("gradient_changes").as_list();
    const StateList& value_changes = state.at("value_changes").as_list();
    const std::size_t expected = plan.search.history.size();
    if (gradient_changes.size() != expected || value_changes.size() != expected) {
      throw StateError(fmt::format(
          "expected {} gradient_changes and value_changes of parameter {}, found {} and {}",
          expected, named.name, gradient_changes.size(), value_changes.size()));
    }
    for (std::size_t i = 0; i < expected; ++i) {
      Pair& pair = plan.search.history[i];
      pair.gradient_change.push_back(take(gradient_changes[i], "gradient_changes"));
      pair.value_change.push_back(take(value_changes[i], "value_changes"));
    }
  }
  return plan;
}

LoadReport LBFGS::check_load(const StateDict& source, const LoadOptions& options) const {
  return plan_load(source, options).report;
}

LoadReport LBFGS::load_state_dict(const StateDict& source, const LoadOptions& options) {
  LoadPlan plan = plan_load(source, options);
  groups_.front().set(plan.fields);
  search_ = std::move(plan.search);
  return plan.report;
}

void LBFGS::check_restore(const StateDict& source) const { plan_load(source, {.strict = true}); }

void LBFGS::restore(const StateDict& source) { load_state_dict(source, {.strict = true}); }

}  // namespace lockstep::optim
