#include "lockstep/optim/combined_optimizer.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <unordered_set>

#include "lockstep/core/error.hpp"
#include "state/loading.hpp"

namespace lockstep {
namespace {

constexpr std::size_t nobody = static_cast<std::size_t>(-1);
// Stands in a group for parameters that are no concern of a member, to which the group must not look
// like one of its own.
constexpr const char* outside = "(outside of this optimizer)";

std::string join(const std::string& prefix, const std::string& name) {
  return prefix.empty() ? name : fmt::format("{}.{}", prefix, name);
}

bool has_prefix(const std::string& prefix, const std::string& name) {
  return prefix.empty() || name.starts_with(prefix + ".");
}

}  // namespace

CombinedOptimizer::CombinedOptimizer(Members members) : members_(std::move(members)) {
  if (members_.empty()) throw OptionError("the combined optimizer got no optimizers");
  std::set<std::string> prefixes, group_names;
  std::map<const KeyedOptimizer*, std::string> prefix_of;
  for (std::size_t i = 0; i < members_.size(); ++i) {
    const auto& [prefix, member] = members_[i];
    if (!prefixes.insert(prefix).second) {
      throw NameError(fmt::format("two optimizers have the prefix '{}'", prefix));
    }
    const auto [known, added] = prefix_of.emplace(&member.get(), prefix);
    if (!added) {
      throw OptionError(
          fmt::format("an optimizer comes twice, as '{}' and '{}'", known->second, prefix));
    }
    member.get().check_step();
    for (const std::string& name : member.get().group_names()) {
      if (!group_names.insert(join(prefix, name)).second) {
        throw NameError(fmt::format("two param groups are called '{}'", join(prefix, name)));
      }
    }
    for (const NamedParameter& named : member.get().named_parameters()) {
      if (!owners_.emplace(join(prefix, named.name), i).second) {
        throw NameError(fmt::format("Duplicate param key {}", join(prefix, named.name)));
      }
    }
  }
}

ParamGroups CombinedOptimizer::param_groups() {
  std::vector<ParamGroup*> groups;
  for (const auto& [prefix, member] : members_) {
    for (ParamGroup& group : member.get().param_groups()) groups.push_back(&group);
  }
  return ParamGroups(std::move(groups));
}

ConstParamGroups CombinedOptimizer::param_groups() const {
  std::vector<const ParamGroup*> groups;
  for (const auto& [prefix, member] : members_) {
    for (const ParamGroup& group : std::as_const(member.get()).param_groups()) {
      groups.push_back(&group);
    }
  }
  return ConstParamGroups(std::move(groups));
}

std::vector<std::string> CombinedOptimizer::group_names() const {
  std::vector<std::string> names;
  for (const auto& [prefix, member] : members_) {
    for (const std::string& name : member.get().group_names()) names.push_back(join(prefix, name));
  }
  return names;
}

std::vector<NamedParameter> CombinedOptimizer::named_parameters() const {
  std::vector<NamedParameter> parameters;
  for (const auto& [prefix, member] : members_) {
    for (const NamedParameter& named : member.get().named_parameters()) {
      parameters.emplace_back(join(prefix, named.name), named.parameter);
    }
  }
  return parameters;
}

void CombinedOptimizer::visit_parameters(
    const std::function<void(const NamedParameter&)>& visit) const {
  std::unordered_set<const void*> known;  // since members may share parameters
  for (const auto& [prefix, member] : members_) {
    member.get().visit_parameters([&, &prefix = prefix](const NamedParameter& named) {
      if (!known.insert(named.parameter.identity()).second) return;
      visit(NamedParameter(join(prefix, named.name), named.parameter));
    });
  }
}

bool CombinedOptimizer::contains(const Parameter& parameter) const {
  return std::any_of(members_.begin(), members_.end(), [&parameter](const auto& member) {
    return member.second.get().contains(parameter);
  });
}

void CombinedOptimizer::agree(const std::function<void()>& work) const {
  std::function<void()> all = work;
  for (const auto& [prefix, member] : members_) {
    all = [inner = std::move(all), &optimizer = member.get()] { optimizer.agree(inner); };
  }
  all();
}

void CombinedOptimizer::add_param_group(const ParamGroupOptions& options) {
  const std::vector<NamedParameter> selected = options.params.select(named_parameters());
  const std::size_t index = member_of(selected.front().name);
  std::vector<Parameter> parameters;
  for (const NamedParameter& named : selected) {
    if (member_of(named.name) != index) {
      throw OptionError(
          fmt::format("a param group must be of one optimizer: '{}' and '{}' are of two",
                      selected.front().name, named.name));
    }
    parameters.push_back(named.parameter);
  }
  ParamGroupOptions own = options;
  own.params = std::move(parameters);
  if (!options.name.empty()) {
    own.name = local_name(index, options.name);
    const std::vector<std::string> names = group_names();
    const std::string full = join(members_[index].first, own.name);
    if (std::find(names.begin(), names.end(), full) != names.end()) {
      throw NameError(fmt::format("two param groups are called '{}'", full));
    }
  }
  members_[index].second.get().add_param_group(own);
}

// The member that has the parameter, or else the one whose prefix fits best, or nobody.
std::size_t CombinedOptimizer::member_of(const std::string& name) const {
  const auto owner = owners_.find(name);
  if (owner != owners_.end()) return owner->second;
  std::size_t best = nobody;
  for (std::size_t i = 0; i < members_.size(); ++i) {
    const std::string& prefix = members_[i].first;
    if (!has_prefix(prefix, name)) continue;
    if (best == nobody || prefix.size() > members_[best].first.size()) best = i;
  }
  return best;
}

std::string CombinedOptimizer::local_name(std::size_t member, const std::string& name) const {
  const std::string& prefix = members_[member].first;
  return prefix.empty() || !has_prefix(prefix, name) ? name : name.substr(prefix.size() + 1);
}

StateDict CombinedOptimizer::join_states(StateDict (KeyedOptimizer::*state_of)() const) const {
  StateDict rules, states;
  StateList groups;
  for (const auto& [prefix, member] : members_) {
    const StateDict state = (member.get().*state_of)();
    rules[prefix] = state.at("rule");
    for (const auto& [name, slots] : state.at("state").as_dict())
      states[join(prefix, name)] = slots;
    for (const StateValue& value : state.at("param_groups").as_list()) {
      StateDict group = value.as_dict();
      StateList names;
      for (const StateValue& name : group.at("params").as_list()) {
        names.emplace_back(join(prefix, name.as_string()));
      }
      group["params"] = std::move(names);
      group["name"] = join(prefix, group.at("name").as_string());
      groups.emplace_back(std::move(group));
    }
  }
  StateDict state;  // not from a list, which would copy what it is given
  state["rule"] = std::move(rules);
  state["state"] = std::move(states);
  state["param_groups"] = std::move(groups);
  return state;
}

// What each member is to load, without what is out of scope; names of nobody go into the report.
std::vector<StateDict> CombinedOptimizer::split(const StateDict& source, const LoadOptions& options,
                                                LoadReport& report) const {
  std::vector<StateDict> states(members_.size());
  std::vector<StateList> groups(members_.size());
  std::set<std::string> strangers;
  std::map<std::string, std::string> found_as;  // names in the source by those here
  const auto in_scope = [&options](const std::string& name) {
    return name.starts_with(options.prefix);
  };
  for (const auto& [name, slots] : source.at("state").as_dict()) {
    const std::string here = options.rename(name);
    if (!in_scope(here)) continue;
    const std::size_t member = member_of(here);
    if (member == nobody) {
      strangers.insert(here);
      continue;
    }
    StateDict& state = states[member];
    const std::string local = local_name(member, here);
    if (state.contains(local) && !bit_equal(state.at(local), slots)) {
      throw StateError(
          fmt::format("'{}' and '{}' of the state dict are both parameter '{}' here, and differ",
                      found_as.at(here), name, here));
    }
    state[local] = slots;
    found_as.emplace(here, name);
  }
  for (const StateValue& value : source.at("param_groups").as_list()) {
    std::vector<StateList> names(members_.size());
    bool whole = true;
    for (const StateValue& name : value.as_dict().at("params").as_list()) {
      const std::string here = options.rename(name.as_string());
      const std::size_t member = member_of(here);
      whole = whole && in_scope(here) && member != nobody;
      if (!in_scope(here)) continue;
      if (member == nobody) {
        strangers.insert(here);
      } else {
        names[member].emplace_back(local_name(member, here));
      }
    }
    const auto has_names = [](const StateList& list) { return !list.empty(); };
    whole = whole && std::count_if(names.begin(), names.end(), has_names) == 1;
    for (std::size_t i = 0; i < members_.size(); ++i) {
      if (names[i].empty()) continue;
      StateDict group = value.as_dict();
      if (!whole) names[i].emplace_back(outside);
      group["params"] = std::move(names[i]);
      groups[i].emplace_back(std::move(group));
    }
  }
  report.unexpected.assign(strangers.begin(), strangers.end());
  std::vector<StateDict> parts;
  for (std::size_t i = 0; i < members_.size(); ++i) {
    parts.push_back({{"state", std::move(states[i])}, {"param_groups", std::move(groups[i])}});
  }
  return parts;
}

LoadReport CombinedOptimizer::check_load(const StateDict& source,
                                         const LoadOptions& options) const {
  LoadReport report;
  const std::vector<StateDict> parts = split(source, options, report);
  for (std::size_t i = 0; i < members_.size(); ++i) {
    const auto& [prefix, member] = members_[i];
    const LoadReport part =
        member.get().check_load(parts[i], {.convert_dtype = options.convert_dtype});
    const auto add = [&prefix = prefix](std::vector<std::string>& to,
                                        const std::vector<std::string>& names) {
      for (const std::string& name : names) {
        if (name != outside) to.push_back(join(prefix, name));
      }
    };
    add(report.loaded, part.loaded);
    add(report.kept, part.kept);
    add(report.unexpected, part.unexpected);
    add(report.kept_groups, part.kept_groups);
    for (const std::string& name : part.missing) {
      const std::string full = join(prefix, name);
      (full.starts_with(options.prefix) ? report.missing : report.kept).push_back(full);
    }
  }
  if (options.strict) check_strict(report);
  return report;
}

LoadReport CombinedOptimizer::load_state_dict(const StateDict& source, const LoadOptions& options) {
  LoadReport report = check_load(source, options);
  LoadReport strangers;
  // A copy, since the source may have views of the members, one of which changes before the other.
  const std::vector<StateDict> parts = split(source.clone(), options, strangers);
  for (std::size_t i = 0; i < members_.size(); ++i) {
    members_[i].second.get().load_state_dict(parts[i], {.convert_dtype = options.convert_dtype});
  }
  return report;
}

void CombinedOptimizer::init_state() {
  for (const auto& [prefix, member] : members_) member.get().init_state();
}

// What each member is to restore.
std::vector<StateDict> CombinedOptimizer::split_exactly(const StateDict& source) const {
  const StateDict& rules = source.at("rule").as_dict();
  for (const auto& [prefix, rule] : rules) {
    const auto is_it = [&prefix = prefix](const auto& member) { return member.first == prefix; };
    if (std::none_of(members_.begin(), members_.end(), is_it)) {
      throw StateError(fmt::format("the state is of an optimizer '{}', which is not here", prefix));
    }
  }
  LoadReport report;
  std::vector<StateDict> parts = split(source, {}, report);
  if (!report.unexpected.empty()) {
    throw StateError(fmt::format("the state has parameter '{}', which no optimizer has",
                                 report.unexpected.front()));
  }
  for (std::size_t i = 0; i < members_.size(); ++i) {
    if (!rules.contains(members_[i].first)) {
      throw StateError(fmt::format("the state lacks the optimizer '{}'", members_[i].first));
    }
    parts[i]["rule"] = rules.at(members_[i].first);
  }
  return parts;
}

void CombinedOptimizer::check_restore(const StateDict& source) const {
  const std::vector<StateDict> parts = split_exactly(source);
  for (std::size_t i = 0; i < members_.size(); ++i) {
    members_[i].second.get().check_restore(parts[i]);
  }
}

void CombinedOptimizer::restore(const StateDict& source) {
  check_restore(source);
  const std::vector<StateDict> parts = split_exactly(source.clone());
  for (std::size_t i = 0; i < members_.size(); ++i) members_[i].second.get().restore(parts[i]);
}

void CombinedOptimizer::check_step() const {
  for (const auto& [prefix, member] : members_) {
    if (member.get().clipping()) {
      throw StateError(fmt::format(
          "optimizer '{}' clips gradients by itself: set that on the CombinedOptimizer", prefix));
    }
    member.get().check_step();
  }
}

bool CombinedOptimizer::update(double gradient_scale) {
  bool any = false;
  for (const auto& [prefix, member] : members_) {
    any |= !member.get().step({.gradient_scale = gradient_scale, .allow_none = true}).empty;
  }
  return any;
}

void CombinedOptimizer::update(const Parameter& parameter, double gradient_scale) {
  for (const auto& [prefix, member] : members_) {
    if (member.get().contains(parameter)) member.get().update(parameter, gradient_scale);
  }
}

}  // namespace lockstep
