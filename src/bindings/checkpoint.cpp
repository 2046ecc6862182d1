#include "lockstep/bindings/checkpoint.h"

#include <optional>
#include <utility>

#include "bindings/items.hpp"
#include "bindings/ranks.hpp"
#include "lockstep/checkpoint/checkpoint_manager.hpp"
#include "lockstep/core/checked_cast.hpp"

namespace lockstep::bindings {
namespace {

struct ManagerObject : ObjectOf<ManagerObject> {
  static constexpr std::string_view name = "checkpoint manager";

  ManagerObject(const std::string& folder, const Communicator& communicator, ItemList items,
                const CheckpointManagerOptions& options)
      : list(std::move(items)), manager(folder, communicator, list.items, options) {}

  ItemList list;
  CheckpointManager manager;
};

CheckpointManager& manager_of(const std::shared_ptr<ManagerObject>& object) {
  return object->manager;
}

CheckpointManagerOptions manager_options(const lockstep_option* options) {
  OptionReader reader = reader_of("checkpoint manager", options);
  CheckpointManagerOptions chosen;
  chosen.every_steps = reader.integer("every_steps", chosen.every_steps);
  chosen.every_minutes = reader.number("every_minutes", chosen.every_minutes);
  chosen.keep_last = reader.integer("keep_last", chosen.keep_last);
  chosen.keep_best = reader.integer("keep_best", chosen.keep_best);
  chosen.best = reader.choice<BestMetric>(
      "best", {{"lowest", BestMetric::lowest}, {"highest", BestMetric::highest}}, chosen.best);
  for (const std::int64_t signal : reader.integers("signal")) {
    chosen.signals.push_back(checked_cast<int>(signal, "signal"));
  }
  chosen.poll_every = reader.integer("poll_every", chosen.poll_every);
  chosen.background = reader.flag("background", chosen.background);
  chosen.when_busy = reader.choice<checkpoint::WhenBusy>(
      "when_busy", {{"wait", checkpoint::WhenBusy::wait}, {"refuse", checkpoint::WhenBusy::refuse}},
      chosen.when_busy);
  chosen.lock = reader.flag("lock", chosen.lock);
  reader.finish();
  return chosen;
}

checkpoint::LoadOptions load_options(const lockstep_option* options) {
  OptionReader reader = reader_of("load", options);
  checkpoint::LoadOptions chosen;
  chosen.mode = reader.choice<checkpoint::LoadMode>("mode",
                                                    {{"strict", checkpoint::LoadMode::strict},
                                                     {"subset", checkpoint::LoadMode::subset},
                                                     {"partial", checkpoint::LoadMode::partial}},
                                                    chosen.mode);
  chosen.prefix = reader.text("prefix", "");
  chosen.convert_dtype = reader.flag("convert_dtype", false);
  reader.finish();
  return chosen;
}

std::optional<double> metric_of(const double* metric) {
  return metric == nullptr ? std::nullopt : std::optional(*metric);
}

}  // namespace
}  // namespace lockstep::bindings

using namespace lockstep;
using namespace lockstep::bindings;

lockstep_status lockstep_checkpoint_save(const char* path, lockstep_communicator communicator,
                                         lockstep_items items) {
  return call([&] {
    const Communicator ranks = communicator_of(communicator);
    std::string file;
    ItemList list;
    ranks.agree([&] {
      file = text_of(path, "path");
      list = get<ItemsObject>(items)->list();
    });
    checkpoint::save(file, ranks, list.items);
  });
}

lockstep_status lockstep_checkpoint_load(const char* path, lockstep_communicator communicator,
                                         lockstep_items items, const lockstep_option* options) {
  return call([&] {
    const Communicator ranks = communicator_of(communicator);
    std::string file;
    ItemList list;
    checkpoint::LoadOptions chosen;
    ranks.agree([&] {
      file = text_of(path, "path");
      list = get<ItemsObject>(items)->list();
      chosen = load_options(options);
    });
    checkpoint::load(file, ranks, list.items, chosen);
  });
}

lockstep_status lockstep_manager_create(const char* folder, lockstep_communicator communicator,
                                        lockstep_items items, const lockstep_option* options,
                                        lockstep_manager* result) {
  return call([&] {
    const Communicator ranks = communicator_of(communicator);
    std::string path;
    ItemList list;
    CheckpointManagerOptions chosen;
    ranks.agree([&] {
      check_pointer(result, "result");
      path = text_of(folder, "folder");
      list = get<ItemsObject>(items)->list();
      chosen = manager_options(options);
    });
    create<ManagerObject>(result, path, ranks, std::move(list), chosen);
  });
}

lockstep_status lockstep_manager_load_latest(lockstep_manager manager, int64_t* step) {
  return call([&] {
    const auto object = get<ManagerObject>(manager);
    *check_pointer(step, "step") = manager_of(object).load_latest().value_or(-1);
  });
}

lockstep_status lockstep_manager_load_best(lockstep_manager manager, int64_t* step) {
  return call([&] {
    const auto object = get<ManagerObject>(manager);
    *check_pointer(step, "step") = manager_of(object).load_best().value_or(-1);
  });
}

lockstep_status lockstep_manager_step(lockstep_manager manager, int64_t step, const double* metric,
                                      int* saved) {
  return call([&] {
    const bool has_saved = manager_of(get<ManagerObject>(manager)).step(step, metric_of(metric));
    if (saved != nullptr) *saved = has_saved ? 1 : 0;
  });
}

lockstep_status lockstep_manager_save(lockstep_manager manager, int64_t step,
                                      const double* metric) {
  return call([&] { manager_of(get<ManagerObject>(manager)).save(step, metric_of(metric)); });
}

lockstep_status lockstep_manager_wait(lockstep_manager manager) {
  return call([&] { manager_of(get<ManagerObject>(manager)).wait(); });
}

lockstep_status lockstep_manager_stop_requested(lockstep_manager manager, int* result) {
  return call([&] {
    const auto object = get<ManagerObject>(manager);
    *check_pointer(result, "result") = manager_of(object).stop_requested() ? 1 : 0;
  });
}
