#include "lockstep/optim/named_optimizer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "lockstep/core/error.hpp"
#include "lockstep/core/log.hpp"
#include "optim/collect_parameters.hpp"

namespace lockstep {

NamedOptimizer::NamedOptimizer(const std::vector<NamedParameter>& parameters,
                               const optim::UpdateRule& rule)
    : NamedOptimizer(parameters, rule, {{.params = [](const NamedParameter&) { return true; }}}) {}

NamedOptimizer::NamedOptimizer(const std::vector<NamedParameter>& parameters,
                               const optim::UpdateRule& rule,
                               const std::vector<ParamGroupOptions>& groups)
    : defaults_(rule.clone()) {
  optim::KnownParameters known = optim::collect_parameters(parameters, "optimizer");
  known_ = std::move(known.parameters);
  aliases_ = std::move(known.aliases);
  for (const ParamGroupOptions& group : groups) add_group(group);
  if (entries_.size() < known_.size()) {
    log(LogLevel::warning,
        fmt::format("the param groups have {} of the {} parameters; the others stay as they are",
                    entries_.size(), known_.size()));
  }
}

ParamGroups NamedOptimizer::param_groups() {
  std::vector<ParamGroup*> groups;
  for (Group& group : groups_) groups.push_back(&group.group);
  return ParamGroups(std::move(groups));
}

ConstParamGroups NamedOptimizer::param_groups() const {
  std::vector<const ParamGroup*> groups;
  for (const Group& group : groups_) groups.push_back(&group.group);
  return ConstParamGroups(std::move(groups));
}

std::vector<std::string> NamedOptimizer::group_names() const {
  std::vector<std::string> names;
  for (const Group& group : groups_) names.push_back(group.group.name());
  return names;
}

void NamedOptimizer::visit_parameters(
    const std::function<void(const NamedParameter&)>& visit) const {
  for (const Group& group : groups_) {
    for (const NamedParameter& named : group.group.parameters()) visit(named);
  }
}

void NamedOptimizer::add_param_group(const ParamGroupOptions& options) { add_group(options); }

void NamedOptimizer::add_group(const ParamGroupOptions& options) {
  std::vector<NamedParameter> members = options.params.select(known_, aliases_);
  for (const NamedParameter& member : members) {
    if (index_.contains(member.name)) {
      throw NameError(
          fmt::format("parameter '{}' appears in more than one param group", member.name));
    }
  }
  const auto taken = [this](const std::string& name) {
    return std::any_of(groups_.begin(), groups_.end(),
                       [&name](const Group& group) { return group.group.name() == name; });
  };
  std::string name = options.name;
  if (taken(name)) throw NameError(fmt::format("two param groups are called '{}'", name));
  for (std::size_t n = groups_.size(); name.empty(); ++n) {
    if (!taken(std::to_string(n))) name = std::to_string(n);
  }
  auto rule = defaults_->clone();
  StateDict fields = options.fields;
  if (options.lr) fields["lr"] = *options.lr;
  rule->set(fields);

  check_sizes(*rule);

  optim::UpdateRule* const own = rule.get();
  groups_.push_back({.group = ParamGroup(name, members, std::move(rule)), .rule = own});
  for (NamedParameter& member : members) {
    const auto [position, added] = index_.emplace(member.name, entries_.size());
    in_group_.emplace(member.parameter.identity(), member.name);
    Entry& entry = entries_.emplace_back();
    entry.parameter = std::move(member.parameter);
    entry.name = &position->first;
    entry.share = {0, entry.parameter.size()};
    entry.group = groups_.size() - 1;
    entry.run = runs_.size();
    runs_.push_back({.begin = entries_.size() - 1, .end = entries_.size()});
  }
}

void NamedOptimizer::check_sizes(const optim::UpdateRule& rule) {
  const auto check = [&rule](const char* what, std::size_t count, std::size_t most) {
    if (count <= most) return;
    throw OptionError(
        fmt::format("{}: expected at most {} {}, found {}", rule.name(), most, what, count));
  };
  check("slots", rule.slots().size(), optim::UpdateRule::max_slots);
  check("scalars", rule.scalars().size(), optim::UpdateRule::max_scalars);
}

bool NamedOptimizer::steps_whole(const ParamGroup& group) const {
  return std::any_of(groups_.begin(), groups_.end(), [&group](const Group& own) {
    return &own.group == &group && own.rule->whole_parameters();
  });
}

void NamedOptimizer::set_shares(const std::function<Share(const Parameter&)>& share_of,
                                const std::function<void(MovingSlots&)>& move) {
  settle_all();
  std::vector<Share> shares(entries_.size());
  std::vector<std::vector<Tensor>> numbers(entries_.size());
  for (const auto& [name, index] : index_) {
    const Entry& entry = entries_[index];
    shares[index] = share_of(entry.parameter);
    for (const Slot& slot : entry.slots) numbers[index].push_back(slot.numbers);
    if (!entry.exists) continue;
    MovingSlots moving{.parameter = {name, entry.parameter}, .numbers = {}};
    for (std::size_t i = 0; i < entry.slots.size(); ++i) {
      if (entry.slots[i].live) moving.numbers.push_back(&numbers[index][i]);
    }
    move(moving);
  }
  bool is_shared = true;
  const auto swap_all = [&] {
    std::swap(is_shared_, is_shared);
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      std::swap(entries_[i].share, shares[i]);
      for (std::size_t slot = 0; slot < entries_[i].slots.size(); ++slot) {
        std::swap(entries_[i].slots[slot].numbers, numbers[i][slot]);
      }
    }
  };
  swap_all();
  try {
    arrange_slots([](const Entry&) { return false; });
  } catch (...) {
    swap_all();
    throw;
  }
}

void NamedOptimizer::remove_last_group() {
  settle_all();
  const std::size_t last = groups_.size() - 1;
  std::erase_if(entries_, [last](const Entry& entry) { return entry.group == last; });
  for (const NamedParameter& member : groups_.back().group.parameters()) {
    index_.erase(member.name);
    in_group_.erase(member.parameter.identity());
  }
  groups_.pop_back();
  for (std::size_t i = 0; i < entries_.size(); ++i) index_.at(*entries_[i].name) = i;
  find_runs();
}

bool NamedOptimizer::keeps_state() const {
  return std::any_of(groups_.begin(), groups_.end(), [](const Group& group) {
    return group.rule->counts_steps() || !group.rule->slots().empty() ||
           !group.rule->scalars().empty();
  });
}

}  // namespace lockstep
