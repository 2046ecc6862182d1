#pragma once

#include <memory>
#include <string>
#include <utility>

#include "bindings/optimizer.hpp"
#include "lockstep/bindings/schedule.h"
#include "lockstep/optim/scheduler.hpp"

namespace lockstep::bindings {

struct SchedulerObject : ObjectOf<SchedulerObject> {
  static constexpr std::string_view name = "scheduler";

  SchedulerObject(std::shared_ptr<OptimizerObject> driven, optim::Schedule schedule,
                  const SchedulerOptions& options)
      : optimizer(std::move(driven)),
        scheduler(*optimizer->optimizer, std::move(schedule), options) {}
  Stateful* state() noexcept override { return &scheduler; }

  std::shared_ptr<OptimizerObject> optimizer;
  Scheduler scheduler;
};

}  // namespace lockstep::bindings
