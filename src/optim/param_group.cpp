#include "lockstep/optim/param_group.hpp"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <map>
#include <set>

#include "lockstep/core/error.hpp"

namespace lockstep {
namespace {

[[noreturn]] void throw_no_match(const std::string& glob,
                                 const std::vector<NamedParameter>& known) {
  constexpr std::size_t most = 8;
  std::string names;
  for (std::size_t i = 0; i < std::min(known.size(), most); ++i) {
    names += fmt::format("{}{}", i == 0 ? "" : ", ", known[i].name);
  }
  if (known.size() > most) names += fmt::format(" and {} more", known.size() - most);
  throw NameError(fmt::format("no parameter has a name like '{}'; there are {}", glob, names));
}

}  // namespace

ParameterSelection::ParameterSelection(const std::vector<NamedParameter>& parameters) {
  for (const NamedParameter& named : parameters) parameters_.push_back(named.parameter);
}

std::vector<NamedParameter> ParameterSelection::select(
    const std::vector<NamedParameter>& known,
    const std::map<std::string, std::string>& aliases) const {
  std::vector<NamedParameter> selected;
  if (!parameters_.empty()) {
    std::map<const void*, const NamedParameter*> by_identity;
    for (const NamedParameter& named : known) {
      by_identity.emplace(named.parameter.identity(), &named);
    }
    std::set<const void*> seen;
    for (const Parameter& parameter : parameters_) {
      const auto found = by_identity.find(parameter.identity());
      if (found == by_identity.end()) {
        throw NameError(
            fmt::format("some parameters are not in the module: one of shape {}",
                        parameter.defined() ? to_string(parameter.shape()) : "undefined"));
      }
      if (!seen.insert(parameter.identity()).second) {
        throw NameError(
            fmt::format("parameter '{}' appears twice in a param group", found->second->name));
      }
      selected.push_back(*found->second);
    }
  }
  std::set<std::string> names, wanted;
  for (const NamedParameter& named : known) names.insert(named.name);
  for (const std::string& glob : globs_) {
    const auto alias = aliases.find(glob);
    if (names.contains(glob) || alias != aliases.end()) {
      wanted.insert(alias == aliases.end() ? glob : alias->second);
      continue;
    }
    bool matches = false;
    for (const std::string& name : names) {
      if (fnmatch(glob.c_str(), name.c_str(), 0) != 0) continue;
      matches = true;
      wanted.insert(name);
    }
    if (!matches) throw_no_match(glob, known);
  }
  for (const NamedParameter& named : known) {
    if (wanted.contains(named.name) || (predicate_ && predicate_(named))) {
      selected.push_back(named);
    }
  }
  if (selected.empty()) throw OptionError("the param group has no parameters");
  return selected;
}

ParamGroup::ParamGroup(std::string name, std::vector<NamedParameter> parameters,
                       std::unique_ptr<optim::HyperParameters> hyper_parameters)
    : name_(std::move(name)),
      parameters_(std::move(parameters)),
      hyper_parameters_(std::move(hyper_parameters)) {}

std::vector<std::string> ParamGroup::names() const {
  std::vector<std::string> names;
  for (const NamedParameter& named : parameters_) names.push_back(named.name);
  std::sort(names.begin(), names.end());
  return names;
}

StateDict ParamGroup::state_dict() const {
  StateDict state = hyper_parameters_->options();
  StateList names;
  for (std::string& name : this->names()) names.emplace_back(std::move(name));
  state["name"] = name_;
  state["params"] = std::move(names);
  return state;
}

}  // namespace lockstep
