#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "state/loading.hpp"
#include "state/parts.hpp"

namespace lockstep {

struct NamedOptimizer::LoadPlan {
  struct Group {
    std::size_t index;
    StateDict fields;  // hyper-parameters to set
  };

  std::vector<std::pair<std::string, StateDict>>
      entries;  // by name here; slots and scalars to take
  std::vector<Group> groups;
  bool clear = false;  // forget all state first
  LoadReport report;
};

namespace {

// A copy of the rule with the hyper-parameters that a state dict has for it; `key()` names the group
// in messages.
template <class Key>
std::pair<std::unique_ptr<optim::UpdateRule>, StateDict> rule_with(const optim::UpdateRule& rule,
                                                                   const StateDict& found,
                                                                   const Key& key) {
  StateDict fields;
  for (const auto& [name, value] : rule.options()) {
    if (!found.contains(name)) {
      throw StateError(fmt::format(
          "Expects group key {} to be in group {} in `state_dict` but is missing.", name, key()));
    }
    fields[name] = found.at(name);
  }
  auto changed = rule.clone();
  changed->set(fields);
  return {std::move(changed), std::move(fields)};
}

// Some numbers of a slot: all of them, or those that an optimizer has a share of.
struct SlotPart {
  std::string what;  // for messages
  const Parameter& parameter;
  std::int64_t begin, size;
  bool is_part;

  // From a state dict that has the whole slot, or just this part.
  Tensor take(const StateValue& found, bool convert_dtype) const {
    if (is_part) {
      return part_of(found, parameter.shape(), parameter.dtype(), begin, size, convert_dtype, what);
    }
    Tensor numbers = found.as_tensor();
    if (convert_dtype && is_floating(numbers.dtype()) && numbers.dtype() != parameter.dtype()) {
      numbers = converted(numbers, parameter.dtype(), what);
    }
    check_same(parameter.value(), numbers, what.c_str());
    return numbers;
  }
};

// The slots and scalars of the rule for a parameter, in its dtype; an error where they are not exactly what
// `found` has. `part` is which numbers of the slots.
StateDict entry_from(const std::string& name, SlotPart part, const optim::UpdateRule& rule,
                     const StateDict& found, bool convert_dtype) {
  const std::size_t expected =
      rule.slots().size() + rule.scalars().size() + (rule.counts_steps() ? 1 : 0);
  if (found.size() != expected) {
    throw StateError(fmt::format("Expects equal length as {} for parameter {} but found: {}",
                                 expected, name, found.size()));
  }
  const auto at = [&](std::string_view key) -> const StateValue& {
    if (!found.contains(key)) {
      throw StateError(fmt::format("Expects state {} for parameter {} but not found.", key, name));
    }
    return found.at(key);
  };
  StateDict state;
  for (const std::string_view slot : rule.slots()) {
    part.what = fmt::format("state {} of parameter {}", slot, name);
    state[slot] = part.take(at(slot), convert_dtype);
  }
  for (const std::string_view scalar : rule.scalars()) {
    const double value = at(scalar).as_double();
    if (!std::isfinite(value)) {
      throw StateError(fmt::format("Expects state {} of parameter {} to be finite but found {}",
                                   scalar, name, value));
    }
    state[scalar] = value;
  }
  if (rule.counts_steps()) {
    const std::int64_t steps = at("step").as_int();
    if (steps < 0) {
      throw StateError(fmt::format(
          "Expects state step of parameter {} to be at least 0 but found {}", name, steps));
    }
    state["step"] = steps;
  }
  return state;
}

// Whether two param groups have the same hyper-parameters.
bool same_fields(StateDict a, StateDict b) {
  for (const char* key : {"name", "params"}) {
    a[key] = StateDict();
    b[key] = StateDict();
  }
  return bit_equal(a, b);
}

// Parameters of a state dict under their names here.
struct Source {
  std::map<std::string, const StateDict*> states;
  std::map<std::vector<std::string>, const StateDict*> groups;  // by their sorted names
  std::set<std::string> names;                                  // of both
};

template <class Name>
Source read_source(const StateDict& source, const Name& name_here) {
  Source result;
  for (const StateValue& group : source.at("param_groups").as_list()) {
    std::set<std::string> names;
    for (const StateValue& name : group.as_dict().at("params").as_list()) {
      names.insert(name_here(name.as_string()));
    }
    result.names.insert(names.begin(), names.end());
    const auto [known, added] = result.groups.emplace(
        std::vector<std::string>(names.begin(), names.end()), &group.as_dict());
    if (!added && !same_fields(*known->second, group.as_dict())) {
      throw StateError(fmt::format(
          "two param groups of the state dict are both the group of '{}' here, and differ",
          fmt::join(names, "', '")));
    }
  }
  std::map<std::string, std::string> found_as;
  for (const auto& [name, value] : source.at("state").as_dict()) {
    const std::string here = name_here(name);
    const auto [known, added] = result.states.emplace(here, &value.as_dict());
    if (!added && !bit_equal(*known->second, value.as_dict())) {
      throw StateError(
          fmt::format("'{}' and '{}' of the state dict are both parameter '{}' here, and differ",
                      found_as.at(here), name, here));
    }
    found_as.emplace(here, name);
    result.names.insert(here);
  }
  return result;
}

}  // namespace

const std::string& NamedOptimizer::name_here(const std::string& name) const {
  const auto alias = aliases_.find(name);
  return alias == aliases_.end() ? name : alias->second;
}

NamedOptimizer::LoadPlan NamedOptimizer::plan_load(const StateDict& source,
                                                   const LoadOptions& options) const {
  const bool initialized = std::any_of(entries_.begin(), entries_.end(),
                                       [](const Entry& entry) { return entry.exists; });
  if (!initialized && keeps_state()) {
    throw StateError(
        "Expects the optim to be initialized before load but found not initialized: call step() or "
        "init_state() first");
  }
  const auto in_scope = [&options](const std::string& name) {
    return name.starts_with(options.prefix);
  };
  const Source found =
      read_source(source, [&](const std::string& name) { return name_here(options.rename(name)); });

  LoadPlan plan;
  std::vector<std::unique_ptr<optim::UpdateRule>> rules;
  for (std::size_t i = 0; i < groups_.size(); ++i) {
    const std::vector<std::string> names = groups_[i].group.names();
    const auto match = found.groups.find(names);
    if (match == found.groups.end() || !std::all_of(names.begin(), names.end(), in_scope)) {
      rules.push_back(groups_[i].rule->clone());
      plan.report.kept_groups.push_back(groups_[i].group.name());
      continue;
    }
    auto [rule, fields] = rule_with(*groups_[i].rule, *match->second,
                                    [&names] { return fmt::format("{}", fmt::join(names, "/")); });
    rules.push_back(std::move(rule));
    plan.groups.push_back({i, std::move(fields)});
  }
  for (const auto& [name, index] : index_) {
    const auto match = found.states.find(name);
    if (in_scope(name) && match != found.states.end()) {
      const Entry& entry = entries_[index];
      plan.entries.emplace_back(
          name,
          entry_from(name, {{}, entry.parameter, entry.share.begin, entry.share.size, is_shared_},
                     *rules[entry.group], *match->second, options.convert_dtype));
      plan.report.loaded.push_back(name);
    } else if (in_scope(name) && !found.names.contains(name)) {
      plan.report.missing.push_back(name);
    } else {
      plan.report.kept.push_back(name);
    }
  }
  for (const std::string& name : found.names) {
    if (in_scope(name) && !index_.contains(name)) plan.report.unexpected.push_back(name);
  }
  if (options.strict) check_strict(plan.report);
  return plan;
}

NamedOptimizer::LoadPlan NamedOptimizer::plan_restore(const StateDict& source) const {
  const std::string& rule_name = source.at("rule").as_string();
  if (rule_name != defaults_->name()) {
    throw StateError(
        fmt::format("the state is of {}, this optimizer is {}", rule_name, defaults_->name()));
  }
  const Source found =
      read_source(source, [this](const std::string& name) { return name_here(name); });
  const StateList& found_groups = source.at("param_groups").as_list();
  if (found_groups.size() != groups_.size()) {
    throw StateError(fmt::format("the state has {} param groups, this optimizer {}",
                                 found_groups.size(), groups_.size()));
  }
  LoadPlan plan;
  plan.clear = true;
  std::vector<std::unique_ptr<optim::UpdateRule>> rules;
  for (std::size_t i = 0; i < groups_.size(); ++i) {
    const StateDict& group = found_groups[i].as_dict();
    const std::vector<std::string> expected = groups_[i].group.names();
    std::vector<std::string> names;
    for (const StateValue& name : group.at("params").as_list()) {
      names.push_back(name_here(name.as_string()));
    }
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());  // aliases
    if (names != expected) {
      const auto [ours, theirs] =
          std::mismatch(expected.begin(), expected.end(), names.begin(), names.end());
      throw StateError(fmt::format(
          "param group {}: expected parameter '{}', found '{}' in the state", i,
          ours == expected.end() ? "(none)" : *ours, theirs == names.end() ? "(none)" : *theirs));
    }
    auto [rule, fields] = rule_with(*groups_[i].rule, group, [i] { return std::to_string(i); });
    rules.push_back(std::move(rule));
    plan.groups.push_back({i, std::move(fields)});
  }
  for (const auto& [name, state] : found.states) {
    const auto index = index_.find(name);
    if (index == index_.end()) {
      throw StateError(fmt::format("the state has parameter '{}', which no param group has", name));
    }
    const Entry& entry = entries_[index->second];
    plan.entries.emplace_back(
        name,
        entry_from(name, {{}, entry.parameter, entry.share.begin, entry.share.size, is_shared_},
                   *rules[entry.group], *state, false));
  }
  return plan;
}

// Whether the state is a view of this optimizer's own, so that loading one parameter could change
// what is yet to be loaded for another.
bool NamedOptimizer::lies_in_slots(const StateDict& state) const {
  const auto begin = [](const Tensor& tensor) {
    return static_cast<const std::byte*>(tensor.raw());
  };
  return std::any_of(state.begin(), state.end(), [&](const auto& item) {
    const auto* tensor = std::get_if<Tensor>(&item.second.variant());
    return tensor != nullptr &&
           std::any_of(slot_memory_.begin(), slot_memory_.end(), [&](const Tensor& memory) {
             const std::less<> before;
             return !before(begin(*tensor), begin(memory)) &&
                    before(begin(*tensor), begin(memory) + memory.bytes());
           });
  });
}

void NamedOptimizer::apply(const LoadPlan& plan) {
  std::set<const Entry*> loading;
  bool rearranges = false;
  for (const auto& [name, state] : plan.entries) {
    const Entry& target = entry(name);
    loading.insert(&target);
    rearranges = rearranges || !target.arranged ||
                 target.layout_epoch != target.parameter.layout_epoch() || lies_in_slots(state);
  }
  std::vector<StateDict> before;
  for (const auto& [index, fields] : plan.groups) before.push_back(groups_[index].rule->options());
  try {
    // Which slots there are may follow from the new hyper-parameters.
    for (const auto& [index, fields] : plan.groups) groups_[index].rule->set(fields);
    if (rearranges || slots_changed()) {
      arrange_slots([&loading](const Entry& entry) { return loading.contains(&entry); });
    }
  } catch (...) {
    for (std::size_t i = 0; i < before.size(); ++i) {
      groups_[plan.groups[i].index].rule->set(before[i]);
    }
    throw;
  }
  settle_all();
  for (Run& run : runs_) run.uniform = false;
  if (plan.clear) {
    for (Entry& entry : entries_) {
      entry.exists = entry.live = false;
      entry.steps = 0;
      entry.scalars.fill(1);
      for (Slot& slot : entry.slots) slot.live = false;
    }
  }
  for (const auto& [name, state] : plan.entries) {
    Entry& loaded = entry(name);
    const Group& group = groups_[loaded.group];
    for (std::size_t i = 0; i < group.slots.size(); ++i) {
      loaded.slots[i].numbers.copy_from(state.at(group.slots[i]).as_tensor());
      loaded.slots[i].live = true;
    }
    const auto scalars = group.rule->scalars();
    for (std::size_t i = 0; i < scalars.size(); ++i) {
      loaded.scalars[i] = state.at(scalars[i]).as_double();
    }
    if (group.rule->counts_steps()) loaded.steps = state.at("step").as_int();
    loaded.exists = loaded.live = true;
  }
}

LoadReport NamedOptimizer::check_load(const StateDict& source, const LoadOptions& options) const {
  return plan_load(source, options).report;
}

LoadReport NamedOptimizer::load_state_dict(const StateDict& source, const LoadOptions& options) {
  const LoadPlan plan = plan_load(source, options);
  apply(plan);
  return plan.report;
}

void NamedOptimizer::check_restore(const StateDict& source) const { plan_restore(source); }

void NamedOptimizer::restore(const StateDict& source) { apply(plan_restore(source)); }

}  // namespace lockstep
