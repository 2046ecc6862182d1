#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lockstep/optim/keyed_optimizer.hpp"
#include "lockstep/optim/schedule.hpp"
#include "lockstep/state/stateful.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

struct SchedulerOptions {
  std::string field = "lr";              ///< the hyper-parameter, a floating-point one
  std::vector<std::string> groups = {};  ///< names of param groups; all, unless given
};

/// Sets a hyper-parameter of an optimizer's param groups, step by step:
///
///     using namespace optim;
///     Scheduler scheduler(optimizer, schedule::warm_up(500, schedule::cosine({.steps = 10000})));
///     for (…) {
///       optimizer.step();
///       scheduler.step();
///     }
///
/// The base value of a group is what the group has when the scheduler is made, or, where the group
/// is added later, at the first step after that. Each group has a copy of the schedule, and of its
/// state. Groups are looked up by name in every step, so a scheduler goes on after any load into
/// the optimizer. One for each hyper-parameter of a group: a second one would undo the first one's
/// work; see schedule::chained instead.
///
/// Nothing here is collective. All ranks must make the same calls, with the same metric, or their
/// hyper-parameters, and then their parameters, differ.
///
/// state_dict() is {"step": 7, "field": "lr", "groups": {"0": {"base": 0.1, "schedule": {…}}, …}}.
class Scheduler : public Stateful {
 public:
  /// Sets the values of step 0. The optimizer must outlive the scheduler. NameError for a group that
  /// the optimizer lacks or that is given twice, or a hyper-parameter that the groups lack;
  /// OptionError for one that is no floating-point number, or a value that it cannot have.
  Scheduler(KeyedOptimizer& optimizer, optim::Schedule schedule,
            const SchedulerOptions& options = {});
  /// A schedule for each of some groups, by their names. OptionError for none.
  Scheduler(KeyedOptimizer& optimizer, std::map<std::string, optim::Schedule> schedules,
            const std::string& field = "lr");

  Scheduler(Scheduler&&) noexcept = default;
  Scheduler& operator=(Scheduler&&) noexcept = default;

  /// Sets the values of the next step, or throws and changes nothing: OptionError for a value that
  /// the hyper-parameter cannot have, or where a schedule needs a metric.
  void step();
  /// With a metric, for schedules that want one; the others ignore it.
  void step(double metric);

  /// The number of the last step; 0 before the first.
  std::int64_t last_step() const noexcept { return last_step_; }
  /// The hyper-parameter as the groups have it now, by their names.
  std::map<std::string, double> values() const;

  StateDict state_dict() const override;
  /// StateError where the source is for another hyper-parameter, for a group that this scheduler or
  /// its optimizer lacks, or for none of the groups that were given by name; OptionError for a value
  /// that the hyper-parameter cannot have.
  void check_restore(const StateDict& source) const override;
  /// Sets the values of the source's step as well. A group that the source lacks gets its base value
  /// back, and is one that was added later.
  void restore(const StateDict& source) override;

 private:
  struct Driven {
    double base;
    optim::Schedule schedule;
  };
  using Groups = std::map<std::string, Driven>;

  std::vector<std::string> covered() const;
  double current(const std::string& group) const;
  Driven newcomer(const std::string& group) const;
  void advance(std::int64_t step, std::optional<double> metric);
  Groups plan_restore(const StateDict& source) const;
  std::map<std::string, double> values_at(const Groups& groups, std::int64_t step) const;
  std::map<std::string, double> restored_values(const Groups& groups, std::int64_t step) const;
  std::map<std::string, double> set(const std::map<std::string, double>& values,
                                    std::int64_t step) const;

  KeyedOptimizer* optimizer_;
  std::string field_;
  std::optional<optim::Schedule> schedule_;           // of all groups, or
  std::map<std::string, optim::Schedule> schedules_;  // of each group that was named
  Groups groups_;
  std::int64_t last_step_ = 0;
};

}  // namespace lockstep

#pragma GCC visibility pop
