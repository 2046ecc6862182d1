#include <fmt/format.h>

#include <string>
#include <utility>
#include <vector>

#include "lockstep/optim/schedule.hpp"
#include "optim/schedule_checks.hpp"

namespace lockstep::optim::schedule {
namespace {

// Schedules made of others, whose state is that of its parts by their numbers; parts without any are
// absent.
class Composed : public ScheduleRule {
 public:
  StateDict state_dict() const override {
    StateDict state;
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      StateDict part = parts_[i].rule().state_dict();
      if (!part.empty()) state[std::to_string(i)] = std::move(part);
    }
    return state;
  }

  void check_restore(const StateDict& source) const override {
    std::size_t known = 0;
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      if (source.contains(std::to_string(i))) ++known;
      parts_[i].rule().check_restore(state_of_part(source, i));
    }
    if (known < source.size()) {
      throw StateError(
          fmt::format("the state is of more schedules than the {} that there are", parts_.size()));
    }
  }

  void restore(const StateDict& source) override {
    check_restore(source);
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      parts_[i].rule().restore(state_of_part(source, i));
    }
  }

 protected:
  explicit Composed(std::vector<Schedule> parts) : parts_(std::move(parts)) {}

  std::vector<Schedule> parts_;

 private:
  static StateDict state_of_part(const StateDict& source, std::size_t part) {
    const std::string key = std::to_string(part);
    return source.contains(key) ? source.at(key).as_dict() : StateDict();
  }
};

class WarmUp : public Composed {
 public:
  WarmUp(std::int64_t steps, Schedule next, double start)
      : Composed({std::move(next)}), steps_(steps), start_(start) {}
  std::unique_ptr<ScheduleRule> clone() const override { return std::make_unique<WarmUp>(*this); }

  double value(double base, std::int64_t step) const override {
    const Schedule& next = parts_.front();
    if (step >= steps_) return next.value(base, step - steps_);
    const double share = static_cast<double>(step) / static_cast<double>(steps_);
    return next.value(base, 0) * (start_ + (1 - start_) * share);
  }
  bool needs_metric(std::int64_t step) const override {
    return step > steps_ && parts_.front().rule().needs_metric(step - steps_);
  }
  void observe(double metric, std::int64_t step) override {
    if (step > steps_) parts_.front().rule().observe(metric, step - steps_);
  }

 private:
  std::int64_t steps_;
  double start_;
};

class Sequential : public Composed {
 public:
  /// `ends` has the step at which each schedule ends; the last one is not used.
  Sequential(std::vector<Schedule> parts, std::vector<std::int64_t> ends)
      : Composed(std::move(parts)), ends_(std::move(ends)) {}
  std::unique_ptr<ScheduleRule> clone() const override {
    return std::make_unique<Sequential>(*this);
  }

  double value(double base, std::int64_t step) const override {
    const std::size_t part = part_at(step);
    return parts_[part].value(base, step - begin_of(part));
  }
  bool needs_metric(std::int64_t step) const override {
    const std::size_t part = part_at(step);
    const std::int64_t own_step = step - begin_of(part);
    return own_step > 0 && parts_[part].rule().needs_metric(own_step);
  }
  void observe(double metric, std::int64_t step) override {
    const std::size_t part = part_at(step);
    const std::int64_t own_step = step - begin_of(part);
    if (own_step > 0) parts_[part].rule().observe(metric, own_step);
  }

 private:
  std::size_t part_at(std::int64_t step) const {
    std::size_t part = 0;
    while (part + 1 < parts_.size() && step >= ends_[part]) ++part;
    return part;
  }
  std::int64_t begin_of(std::size_t part) const { return part == 0 ? 0 : ends_[part - 1]; }

  std::vector<std::int64_t> ends_;
};

class Chained : public Composed {
 public:
  explicit Chained(std::vector<Schedule> parts) : Composed(std::move(parts)) {}
  std::unique_ptr<ScheduleRule> clone() const override { return std::make_unique<Chained>(*this); }

  double value(double base, std::int64_t step) const override {
    for (const Schedule& part : parts_) base = part.value(base, step);
    return base;
  }
  bool needs_metric(std::int64_t step) const override {
    for (const Schedule& part : parts_) {
      if (part.rule().needs_metric(step)) return true;
    }
    return false;
  }
  void observe(double metric, std::int64_t step) override {
    for (Schedule& part : parts_) part.rule().observe(metric, step);
  }
};

}  // namespace

Schedule warm_up(std::int64_t steps, Schedule next, const WarmUpOptions& options) {
  require("warm_up", steps >= 0, "steps >= 0", steps);
  require("warm_up", options.start >= 0, "start >= 0", options.start);
  return WarmUp(steps, std::move(next), options.start);
}

Schedule sequential(std::vector<Phase> phases) {
  if (phases.empty()) {
    throw OptionError("schedule sequential: expected at least one phase, found none");
  }
  std::vector<Schedule> parts;
  std::vector<std::int64_t> ends;
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < phases.size(); ++i) {
    const std::int64_t until = phases[i].until;
    const bool last = i + 1 == phases.size();
    if (last && until != Phase::forever) {
      throw OptionError(
          fmt::format("schedule sequential: expected no until of the last phase, found {}", until));
    }
    if (!last && until == Phase::forever) {
      throw OptionError(fmt::format("schedule sequential: phase {} has no until", i));
    }
    require("sequential", until > begin, fmt::format("until > {} of phase {}", begin, i), until);
    parts.push_back(std::move(phases[i].schedule));
    ends.push_back(until);
    begin = until;
  }
  return Sequential(std::move(parts), std::move(ends));
}

Schedule chained(std::vector<Schedule> schedules) {
  if (schedules.empty()) {
    throw OptionError("schedule chained: expected at least one schedule, found none");
  }
  return Chained(std::move(schedules));
}

}  // namespace lockstep::optim::schedule
