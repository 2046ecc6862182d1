#include "bindings/schedule.hpp"

#include <fmt/format.h>

#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/optim/by_name.hpp"

namespace lockstep::bindings {
namespace {

struct ScheduleObject : ObjectOf<ScheduleObject> {
  static constexpr std::string_view name = "schedule";

  explicit ScheduleObject(optim::Schedule made) : schedule(std::move(made)) {}

  optim::Schedule schedule;
};

optim::Schedule schedule_of(lockstep_schedule schedule) {
  return get<ScheduleObject>(schedule)->schedule;
}

void check_list(std::int64_t count, const lockstep_schedule* schedules) {
  if (count < 1) {
    throw OptionError(fmt::format("expected at least one schedule, found {}", count));
  }
  check_pointer(schedules, "schedules");
}

}  // namespace
}  // namespace lockstep::bindings

using namespace lockstep;
using namespace lockstep::bindings;

lockstep_status lockstep_schedule_create(const char* name, const lockstep_option* options,
                                         lockstep_schedule* result) {
  return call([&] {
    create<ScheduleObject>(result,
                           optim::make_schedule(text_of(name, "name"), options_of(options)));
  });
}

lockstep_status lockstep_schedule_create_function(double (*factor)(void* context, int64_t step),
                                                  void* context, lockstep_schedule* result) {
  return call([&] {
    check_pointer(factor, "factor");
    create<ScheduleObject>(result, optim::schedule::function([factor, context](std::int64_t step) {
                             return factor(context, step);
                           }));
  });
}

lockstep_status lockstep_schedule_warm_up(int64_t steps, double start, lockstep_schedule next,
                                          lockstep_schedule* result) {
  return call([&] {
    create<ScheduleObject>(result,
                           optim::schedule::warm_up(steps, schedule_of(next), {.start = start}));
  });
}

lockstep_status lockstep_schedule_sequence(int64_t count, const lockstep_schedule* schedules,
                                           const int64_t* until, lockstep_schedule* result) {
  return call([&] {
    check_list(count, schedules);
    if (count > 1) check_pointer(until, "until");
    std::vector<optim::schedule::Phase> phases;
    for (std::int64_t i = 0; i < count; ++i) {
      const bool last = i + 1 == count;
      phases.push_back(
          {schedule_of(schedules[i]), last ? optim::schedule::Phase::forever : until[i]});
    }
    create<ScheduleObject>(result, optim::schedule::sequential(std::move(phases)));
  });
}

lockstep_status lockstep_schedule_chain(int64_t count, const lockstep_schedule* schedules,
                                        lockstep_schedule* result) {
  return call([&] {
    check_list(count, schedules);
    std::vector<optim::Schedule> links;
    for (std::int64_t i = 0; i < count; ++i) links.push_back(schedule_of(schedules[i]));
    create<ScheduleObject>(result, optim::schedule::chained(std::move(links)));
  });
}

lockstep_status lockstep_scheduler_create(lockstep_optimizer optimizer, lockstep_schedule schedule,
                                          const char* field, const char* group,
                                          lockstep_scheduler* result) {
  return call([&] {
    SchedulerOptions options;
    if (field != nullptr) options.field = field;
    if (group != nullptr) options.groups = {group};
    create<SchedulerObject>(result, get<OptimizerObject>(optimizer), schedule_of(schedule),
                            options);
  });
}

lockstep_status lockstep_scheduler_step(lockstep_scheduler scheduler, const double* metric) {
  return call([&] {
    Scheduler& driven = get<SchedulerObject>(scheduler)->scheduler;
    metric == nullptr ? driven.step() : driven.step(*metric);
  });
}

lockstep_status lockstep_scheduler_last_step(lockstep_scheduler scheduler, int64_t* result) {
  return call([&] {
    const auto object = get<SchedulerObject>(scheduler);
    *check_pointer(result, "result") = object->scheduler.last_step();
  });
}
