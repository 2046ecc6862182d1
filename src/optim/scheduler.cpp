#include "lockstep/optim/scheduler.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "lockstep/core/error.hpp"

namespace lockstep {

Scheduler::Scheduler(KeyedOptimizer& optimizer, optim::Schedule schedule,
                     const SchedulerOptions& options)
    : optimizer_(&optimizer), field_(options.field) {
  for (const std::string& group : options.groups) {
    if (!schedules_.emplace(group, schedule).second) {
      throw NameError(fmt::format("param group '{}' is given to the scheduler twice", group));
    }
  }
  if (options.groups.empty()) schedule_ = std::move(schedule);
  advance(0, std::nullopt);
}

Scheduler::Scheduler(KeyedOptimizer& optimizer, std::map<std::string, optim::Schedule> schedules,
                     const std::string& field)
    : optimizer_(&optimizer), field_(field), schedules_(std::move(schedules)) {
  if (schedules_.empty()) {
    throw OptionError("scheduler: expected the schedule of at least one param group, found none");
  }
  advance(0, std::nullopt);
}

void Scheduler::step() { advance(last_step_ + 1, std::nullopt); }

void Scheduler::step(double metric) { advance(last_step_ + 1, metric); }

std::map<std::string, double> Scheduler::values() const {
  std::map<std::string, double> values;
  for (const auto& [name, driven] : groups_) values[name] = current(name);
  return values;
}

std::vector<std::string> Scheduler::covered() const {
  if (schedule_) return optimizer_->group_names();
  std::vector<std::string> names;
  for (const auto& [name, schedule] : schedules_) names.push_back(name);
  return names;
}

double Scheduler::current(const std::string& group) const {
  const StateValue value = optimizer_->param_group(group).get(field_);
  if (const auto* number = std::get_if<double>(&value.variant())) return *number;
  throw OptionError(
      fmt::format("scheduler: expected a floating-point hyper-parameter, but '{}' of param group "
                  "'{}' is {}",
                  field_, group, value.kind()));
}

Scheduler::Driven Scheduler::newcomer(const std::string& group) const {
  return {current(group), schedule_ ? *schedule_ : schedules_.at(group)};
}

void Scheduler::advance(std::int64_t step, std::optional<double> metric) {
  Groups groups = groups_;
  for (const std::string& name : covered()) {
    if (!groups.contains(name)) groups.emplace(name, newcomer(name));
  }
  for (auto& [name, driven] : groups) {
    if (step == 0) break;  // before any metric
    if (metric) {
      driven.schedule.rule().observe(*metric, step);
    } else if (driven.schedule.rule().needs_metric(step)) {
      throw OptionError(
          fmt::format("the schedule of '{}' in param group '{}' needs a metric: call step(metric)",
                      field_, name));
    }
  }
  set(values_at(groups, step), step);
  groups_ = std::move(groups);
  last_step_ = step;
}

std::map<std::string, double> Scheduler::values_at(const Groups& groups, std::int64_t step) const {
  std::map<std::string, double> values;
  for (const auto& [name, driven] : groups) {
    const double value = driven.schedule.value(driven.base, step);
    if (!std::isfinite(value)) {
      throw OptionError(fmt::format("the schedule of '{}' in param group '{}' gives {} at step {}",
                                    field_, name, value, step));
    }
    values[name] = value;
  }
  return values;
}

// Returns what was there before; throws and changes nothing where a value cannot be set.
std::map<std::string, double> Scheduler::set(const std::map<std::string, double>& values,
                                             std::int64_t step) const {
  std::map<std::string, double> before;
  for (const auto& [name, value] : values) before[name] = current(name);
  auto next = values.begin();
  try {
    for (; next != values.end(); ++next) {
      optimizer_->param_group(next->first).set({{field_, next->second}});
    }
  } catch (...) {
    for (auto changed = values.begin(); changed != next; ++changed) {
      optimizer_->param_group(changed->first).set({{field_, before.at(changed->first)}});
    }
    const ErrorReport report = describe_current_exception();
    if (report.kind != ErrorKind::option) throw;
    throw OptionError(fmt::format("the schedule of '{}' in param group '{}' at step {}: {}", field_,
                                  next->first, step, report.message));
  }
  return before;
}

StateDict Scheduler::state_dict() const {
  StateDict groups;
  for (const auto& [name, driven] : groups_) {
    groups[name] =
        StateDict{{"base", driven.base}, {"schedule", driven.schedule.rule().state_dict()}};
  }
  return {{"step", last_step_}, {"field", field_}, {"groups", std::move(groups)}};
}

Scheduler::Groups Scheduler::plan_restore(const StateDict& source) const {
  const std::string& field = source.at("field").as_string();
  if (field != field_) {
    throw StateError(
        fmt::format("the state is of a scheduler of '{}', this one is of '{}'", field, field_));
  }
  const std::int64_t step = source.at("step").as_int();
  if (step < 0) {
    throw StateError(fmt::format("state of a scheduler: expected step >= 0, found {}", step));
  }
  const StateDict& found = source.at("groups").as_dict();
  for (const auto& [name, schedule] : schedules_) {
    if (!found.contains(name)) {
      throw StateError(fmt::format("the state of the scheduler lacks param group '{}'", name));
    }
  }
  const std::vector<std::string> known = covered();
  Groups groups;
  for (const auto& [name, state] : found) {
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      throw StateError(fmt::format(
          "the state has param group '{}', which this scheduler does not act on; it acts on '{}'",
          name, fmt::join(known, "', '")));
    }
    Driven driven = newcomer(name);
    driven.base = state.as_dict().at("base").as_double();
    try {
      driven.schedule.rule().restore(state.as_dict().at("schedule").as_dict());
    } catch (const Error& error) {
      throw StateError(fmt::format("schedule of param group '{}': {}", name, error.what()));
    }
    groups.emplace(name, std::move(driven));
  }
  return groups;
}

void Scheduler::check_restore(const StateDict& source) const {
  const std::int64_t step = source.at("step").as_int();
  // Whether the groups take the values, only the groups know.
  set(set(restored_values(plan_restore(source), step), step), step);
}

void Scheduler::restore(const StateDict& source) {
  Groups groups = plan_restore(source);
  const std::int64_t step = source.at("step").as_int();
  set(restored_values(groups, step), step);
  groups_ = std::move(groups);
  last_step_ = step;
}

// With the base values of groups that it drives no longer, from which it will start anew.
std::map<std::string, double> Scheduler::restored_values(const Groups& groups,
                                                         std::int64_t step) const {
  std::map<std::string, double> values = values_at(groups, step);
  for (const auto& [name, driven] : groups_) values.emplace(name, driven.base);
  return values;
}

}  // namespace lockstep
