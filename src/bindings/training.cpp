#include "lockstep/bindings/training.h"

#include <fmt/format.h>

#include <utility>

#include "bindings/model.hpp"
#include "bindings/ranks.hpp"
#include "bindings/schedule.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/train/reservoir.hpp"
#include "lockstep/train/trainer.hpp"

namespace lockstep::bindings {
namespace {

struct ReservoirObject : ObjectOf<ReservoirObject> {
  static constexpr std::string_view name = "reservoir";

  explicit ReservoirObject(train::Reservoir made) : reservoir(std::move(made)) {}
  Stateful* state() noexcept override { return &reservoir; }

  train::Reservoir reservoir;
  data::Batch drawn;  // the last batch that the caller was given
};

// What a trainer trains.
struct Trained {
  std::shared_ptr<ReplicaObject> replica;
  std::shared_ptr<OptimizerObject> optimizer;
  Loss loss;
  std::shared_ptr<SchedulerObject> scheduler;
  std::shared_ptr<ReservoirObject> reservoir;
  std::int64_t samples = 0;

  train::StepLoss step(const std::function<data::Batch()>& make) const {
    optimizer->optimizer->zero_grad();
    train::StepLoss result;
    result.loss = backward(*replica, loss, make, result.samples);
    optimizer->optimizer->step();
    if (scheduler != nullptr) scheduler->scheduler.step();
    return result;
  }
  train::StepLoss step() const {
    if (reservoir == nullptr) {
      throw StateError(
          "a trainer without a reservoir is given its batches by lockstep_trainer_step()");
    }
    const data::Batch batch = reservoir->reservoir.draw(samples);
    return step([&] { return batch; });
  }
};

struct TrainerObject : ObjectOf<TrainerObject> {
  static constexpr std::string_view name = "trainer";

  explicit TrainerObject(Trained what)
      : trained(std::make_shared<Trained>(std::move(what))),
        trainer(trained->replica->parallel.communicator(),
                [own = trained] { return own->step(); }) {}
  TrainerObject(const Communicator& communicator, train::Trainer::Step step)
      : trainer(communicator, std::move(step)) {}

  std::shared_ptr<const Trained> trained;  // nullptr where the step is the caller's own
  train::Trainer trainer;
};

Shape row_shape(const lockstep_array* array, const char* what) {
  return shape_of(*check_pointer(array, what), what);
}

void give(const train::TrainReport& report, lockstep_train_report* result) {
  if (result != nullptr) *result = {report.steps, report.seconds, report.loss};
}

}  // namespace
}  // namespace lockstep::bindings

using namespace lockstep;
using namespace lockstep::bindings;

lockstep_status lockstep_reservoir_create(lockstep_communicator communicator, int64_t capacity,
                                          const lockstep_array* input, const lockstep_array* target,
                                          const lockstep_option* options,
                                          lockstep_reservoir* result) {
  return call([&] {
    const Communicator ranks = communicator_of(communicator);
    Shape input_shape, target_shape;
    train::ReservoirOptions chosen;
    ranks.agree([&] {
      check_pointer(result, "result");
      input_shape = row_shape(input, "input");
      target_shape = row_shape(target, "target");
      chosen.input_dtype = dtype_of_array(*input, "input");
      chosen.target_dtype = dtype_of_array(*target, "target");
      OptionReader reader = reader_of("reservoir", options);
      chosen.seed = static_cast<std::uint64_t>(reader.integer("seed", 0));
      reader.finish();
    });
    create<ReservoirObject>(result,
                            train::Reservoir(capacity, input_shape, target_shape, ranks, chosen));
  });
}

lockstep_status lockstep_reservoir_add(lockstep_reservoir reservoir, const lockstep_array* inputs,
                                       const lockstep_array* targets) {
  return call([&] {
    get<ReservoirObject>(reservoir)->reservoir.add(input_of(inputs, "inputs"),
                                                   input_of(targets, "targets"));
  });
}

lockstep_status lockstep_reservoir_draw(lockstep_reservoir reservoir, int64_t samples,
                                        lockstep_array* inputs, lockstep_array* targets) {
  return call([&] {
    const auto object = get<ReservoirObject>(reservoir);
    object->drawn = object->reservoir.draw(samples);
    *check_pointer(inputs, "inputs") = array_of(object->drawn.inputs);
    *check_pointer(targets, "targets") = array_of(object->drawn.targets);
  });
}

lockstep_status lockstep_reservoir_size(lockstep_reservoir reservoir, int64_t* result) {
  return call([&] {
    const auto object = get<ReservoirObject>(reservoir);
    *check_pointer(result, "result") = object->reservoir.size();
  });
}

lockstep_status lockstep_reservoir_seen(lockstep_reservoir reservoir, int64_t* result) {
  return call([&] {
    const auto object = get<ReservoirObject>(reservoir);
    *check_pointer(result, "result") = object->reservoir.seen();
  });
}

lockstep_status lockstep_trainer_create(lockstep_replica replica, lockstep_optimizer optimizer,
                                        const lockstep_loss* loss, lockstep_scheduler scheduler,
                                        lockstep_reservoir reservoir, int64_t samples,
                                        lockstep_trainer* result) {
  return call([&] {
    Trained trained{.replica = get<ReplicaObject>(replica),
                    .optimizer = get<OptimizerObject>(optimizer),
                    .loss = loss_of(loss),
                    .scheduler = nullptr,
                    .reservoir = nullptr,
                    .samples = samples};
    if (scheduler != nullptr) trained.scheduler = get<SchedulerObject>(scheduler);
    if (reservoir != nullptr) {
      trained.reservoir = get<ReservoirObject>(reservoir);
      if (samples < 1) {
        throw OptionError(fmt::format("expected at least 1 sample a batch, found {}", samples));
      }
    }
    create<TrainerObject>(result, std::move(trained));
  });
}

lockstep_status lockstep_trainer_create_function(lockstep_communicator communicator,
                                                 lockstep_train_function step, void* context,
                                                 lockstep_trainer* result) {
  return call([&] {
    check_pointer(step, "step");
    create<TrainerObject>(result, communicator_of(communicator), [step, context] {
      train::StepLoss made;
      const int failed = step(context, &made.loss, &made.samples);
      if (failed != 0) throw CallbackError(fmt::format("the step returned {}", failed));
      return made;
    });
  });
}

lockstep_status lockstep_trainer_step(lockstep_trainer trainer, const lockstep_array* inputs,
                                      const lockstep_array* targets, double* mean_loss) {
  return call([&] {
    const auto object = get<TrainerObject>(trainer);
    if (object->trained == nullptr) {
      throw StateError("a trainer of the caller's own step has no batches");
    }
    const train::StepLoss made = object->trained->step([&] { return batch_of(inputs, targets); });
    if (mean_loss != nullptr) *mean_loss = made.loss;
  });
}

lockstep_status lockstep_trainer_train(lockstep_trainer trainer, int64_t steps,
                                       lockstep_train_report* report) {
  return call([&] { give(get<TrainerObject>(trainer)->trainer.train(steps), report); });
}

lockstep_status lockstep_trainer_train_for(lockstep_trainer trainer, double seconds,
                                           lockstep_train_report* report) {
  return call([&] { give(get<TrainerObject>(trainer)->trainer.train_for(seconds), report); });
}
