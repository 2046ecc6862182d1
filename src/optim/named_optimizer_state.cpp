#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/optim/named_optimizer.hpp"

namespace lockstep {

struct NamedOptimizer::LoadPlan {
  std::vector<std::pair<Entry*, const StateDict*>> entries;
  std::vector<std::pair<ParamGroup*, StateDict>> groups;  // hyper-parameters to set
  bool clear = false;                                     // forget all state first
};

namespace {

std::vector<std::string> names_of(const StateDict& group) {
  std::vector<std::string> names;
  for (const StateValue& name : group.at("params").as_list()) names.push_back(name.as_string());
  std::sort(names.begin(), names.end());
  return names;
}

// A copy of the rule with the hyper-parameters that a state dict has for it; `key` names the group
// in messages.
std::pair<std::unique_ptr<optim::UpdateRule>, StateDict> rule_with(const optim::UpdateRule& rule,
                                                                   const StateDict& found,
                                                                   const std::string& key) {
  StateDict fields;
  for (const auto& [name, value] : rule.options()) {
    if (!found.contains(name)) {
      throw StateError(fmt::format(
          "Expects group key {} to be in group {} in `state_dict` but is missing.", name, key));
    }
    fields[name] = found.at(name);
  }
  auto changed = rule.clone();
  changed->set(fields);
  return {std::move(changed), std::move(fields)};
}

// That `found` has the slots of the rule for a parameter, in its shape and dtype, and nothing else.
void check_entry(const std::string& name, const Parameter& parameter, const optim::UpdateRule& rule,
                 const StateDict& found) {
  const std::size_t expected = rule.slots().size() + (rule.counts_steps() ? 1 : 0);
  if (found.size() != expected) {
    throw StateError(fmt::format("Expects equal length as {} for parameter {} but found: {}",
                                 expected, name, found.size()));
  }
  const auto missing = [&name](std::string_view key) {
    return StateError(fmt::format("Expects state {} for parameter {} but not found.", key, name));
  };
  for (const std::string_view slot : rule.slots()) {
    if (!found.contains(slot)) throw missing(slot);
    const std::string what = fmt::format("state {} of parameter {}", slot, name);
    check_same(parameter.value(), found.at(slot).as_tensor(), what.c_str());
  }
  if (rule.counts_steps()) {
    if (!found.contains("step")) throw missing("step");
    if (found.at("step").as_int() < 0) {
      throw StateError(
          fmt::format("Expects state step of parameter {} to be at least 0 but found {}", name,
                      found.at("step").as_int()));
    }
  }
}

}  // namespace

StateDict NamedOptimizer::entry_state(const Entry& entry) const {
  const optim::UpdateRule& rule = entry.group->rule();
  StateDict state;
  for (std::size_t i = 0; i < std::min(rule.slots().size(), entry.live_slots); ++i) {
    state[rule.slots()[i]] = entry.slots[i];
  }
  if (rule.counts_steps()) state["step"] = entry.steps;
  return state;
}

StateDict NamedOptimizer::state_dict() const {
  StateDict states;
  for (const auto& [name, entry] : entries_) {
    if (!entry.exists) continue;
    StateDict state = entry_state(entry);
    if (!state.empty()) states[name] = std::move(state);
  }
  StateList groups;
  for (const ParamGroup& group : groups_) groups.emplace_back(group.state_dict());
  return {{"rule", defaults_->name()}, {"state", std::move(states)}, {"param_groups", groups}};
}

NamedOptimizer::LoadPlan NamedOptimizer::plan_load(const StateDict& source) const {
  const bool initialized = std::any_of(entries_.begin(), entries_.end(),
                                       [](const auto& item) { return item.second.exists; });
  if (!initialized && keeps_state()) {
    throw StateError(
        "Expects the optim to be initialized before load but found not initialized: call step() or "
        "init_state() first");
  }
  LoadPlan plan;
  std::map<std::vector<std::string>, const StateDict*> found_groups;
  for (const StateValue& group : source.at("param_groups").as_list()) {
    found_groups[names_of(group.as_dict())] = &group.as_dict();
  }
  std::map<const ParamGroup*, std::unique_ptr<optim::UpdateRule>> rules;
  for (const ParamGroup& group : groups_) {
    const auto found = found_groups.find(group.names());
    if (found == found_groups.end()) {
      rules[&group] = group.rule().clone();
      continue;
    }
    auto [rule, fields] =
        rule_with(group.rule(), *found->second, fmt::format("{}", fmt::join(group.names(), "/")));
    rules[&group] = std::move(rule);
    plan.groups.emplace_back(const_cast<ParamGroup*>(&group), std::move(fields));
  }
  const StateDict& states = source.at("state").as_dict();
  for (const auto& [name, entry] : entries_) {
    if (!states.contains(name)) continue;
    const StateDict& found = states.at(name).as_dict();
    check_entry(name, entry.parameter, *rules.at(entry.group), found);
    plan.entries.emplace_back(const_cast<Entry*>(&entry), &found);
  }
  return plan;
}

NamedOptimizer::LoadPlan NamedOptimizer::plan_restore(const StateDict& source) const {
  const std::string& rule_name = source.at("rule").as_string();
  if (rule_name != defaults_->name()) {
    throw StateError(
        fmt::format("the state is of {}, this optimizer is {}", rule_name, defaults_->name()));
  }
  const StateList& found_groups = source.at("param_groups").as_list();
  if (found_groups.size() != groups_.size()) {
    throw StateError(fmt::format("the state has {} param groups, this optimizer {}",
                                 found_groups.size(), groups_.size()));
  }
  LoadPlan plan{.entries = {}, .groups = {}, .clear = true};
  std::map<const ParamGroup*, std::unique_ptr<optim::UpdateRule>> rules;
  for (std::size_t i = 0; i < groups_.size(); ++i) {
    const ParamGroup& group = groups_[i];
    const StateDict& found = found_groups[i].as_dict();
    const std::vector<std::string> expected = group.names(), names = names_of(found);
    if (names != expected) {
      const auto [ours, theirs] =
          std::mismatch(expected.begin(), expected.end(), names.begin(), names.end());
      throw StateError(fmt::format(
          "param group {}: expected parameter '{}', found '{}' in the state", i,
          ours == expected.end() ? "(none)" : *ours, theirs == names.end() ? "(none)" : *theirs));
    }
    auto [rule, fields] = rule_with(group.rule(), found, std::to_string(i));
    rules[&group] = std::move(rule);
    plan.groups.emplace_back(const_cast<ParamGroup*>(&group), std::move(fields));
  }
  for (const auto& [name, value] : source.at("state").as_dict()) {
    const auto entry = entries_.find(name);
    if (entry == entries_.end()) {
      throw StateError(fmt::format("the state has parameter '{}', which no param group has", name));
    }
    check_entry(name, entry->second.parameter, *rules.at(entry->second.group), value.as_dict());
    plan.entries.emplace_back(const_cast<Entry*>(&entry->second), &value.as_dict());
  }
  return plan;
}

void NamedOptimizer::apply(const LoadPlan& plan) {
  std::vector<Entry*> wanted;
  for (const auto& [entry, found] : plan.entries) wanted.push_back(entry);
  std::vector<StateDict> before;
  for (const auto& [group, fields] : plan.groups) before.push_back(group->rule().options());
  try {
    // Which slots there are may follow from the new hyper-parameters.
    for (const auto& [group, fields] : plan.groups) group->set(fields);
    arrange_slots(wanted);
  } catch (...) {
    for (std::size_t i = 0; i < before.size(); ++i) plan.groups[i].first->set(before[i]);
    throw;
  }
  if (plan.clear) {
    for (auto& [name, entry] : entries_) {
      entry.exists = false;
      entry.live_slots = 0;
      entry.steps = 0;
    }
  }
  for (const auto& [entry, found] : plan.entries) {
    const optim::UpdateRule& rule = entry->group->rule();
    for (std::size_t i = 0; i < rule.slots().size(); ++i) {
      entry->slots[i].copy_from(found->at(rule.slots()[i]).as_tensor());
    }
    entry->exists = true;
    entry->live_slots = rule.slots().size();
    if (rule.counts_steps()) entry->steps = found->at("step").as_int();
  }
}

void NamedOptimizer::load_state_dict(const StateDict& source) { apply(plan_load(source)); }

void NamedOptimizer::check_restore(const StateDict& source) const { plan_restore(source); }

void NamedOptimizer::restore(const StateDict& source) { apply(plan_restore(source)); }

void NamedOptimizer::init_state() {
  std::vector<Entry*> starting;
  for (auto& [name, entry] : entries_) {
    if (!entry.parameter.requires_grad()) continue;
    if (!entry.parameter.has_grad()) entry.parameter.mutable_grad();
    if (!entry.exists) starting.push_back(&entry);
  }
  arrange_slots(starting);
  for (Entry* entry : starting) {
    entry->exists = true;
    entry->live_slots = entry->group->rule().slots().size();
  }
}

}  // namespace lockstep
