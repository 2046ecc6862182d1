#include "lockstep/checkpoint/checkpoint_manager.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <utility>

#include "checkpoint/checkpoint_folder.hpp"
#include "checkpoint/stop_signals.hpp"
#include "comm/drift.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/core/log.hpp"

namespace lockstep {
namespace {

/// Whether one of the multiples of `every` is above `from`, and not above `to`.
bool reaches_multiple(std::int64_t every, std::int64_t from, std::int64_t to) {
  return every > 0 && to / every > from / every;
}

NamedHash hash_of(const char* name, const std::string& value) {
  return {name, XXH3_64bits(value.data(), value.size())};
}

std::vector<NamedHash> describe(const std::filesystem::path& folder,
                                const CheckpointManagerOptions& options) {
  return {hash_of("folder", folder.string()),
          hash_of("every_steps", fmt::format("{}", options.every_steps)),
          hash_of("every_minutes", fmt::format("{}", options.every_minutes)),
          hash_of("keep_last", fmt::format("{}", options.keep_last)),
          hash_of("keep_best", fmt::format("{}", options.keep_best)),
          hash_of("best", fmt::format("{}", static_cast<int>(options.best))),
          hash_of("signals", fmt::format("{}", fmt::join(options.signals, " "))),
          hash_of("poll_every", fmt::format("{}", options.poll_every)),
          hash_of("lock", fmt::format("{}", options.lock))};
}

void check_at_least(const char* name, std::int64_t least, std::int64_t value) {
  if (value >= least) return;
  throw OptionError(
      fmt::format("checkpoint manager: expected {} >= {}, found {}", name, least, value));
}

}  // namespace

/// What a manager saves of its own.
class CheckpointManager::Record : public Stateful {
 public:
  explicit Record(std::int64_t step, std::optional<double> metric = std::nullopt)
      : step_(step), metric_(metric) {}

  std::optional<double> metric() const { return metric_; }

  StateDict state_dict() const override {
    StateDict state{{"step", step_}};
    if (metric_) state["metric"] = *metric_;
    return state;
  }
  void check_restore(const StateDict& source) const override {
    const checkpoint::SavedStep saved(source);
    if (saved.step == step_) return;
    throw StateError(fmt::format("it is the checkpoint of step {}, not of step {} as its name says",
                                 saved.step, step_));
  }
  void restore(const StateDict& source) override {
    check_restore(source);
    metric_ = checkpoint::SavedStep(source).metric;
  }

 private:
  std::int64_t step_;
  std::optional<double> metric_;
};

CheckpointManager::CheckpointManager(const std::filesystem::path& folder,
                                     const Communicator& communicator,
                                     std::vector<checkpoint::Item> items,
                                     const CheckpointManagerOptions& options)
    : folder_path_(folder),
      communicator_(communicator),
      items_(std::move(items)),
      options_(options) {
  communicator_.agree([this] { check_options(); });
  const std::string drift = comm::find_drift(communicator_, describe(folder, options));
  if (!drift.empty()) {
    throw_collective(
        {ErrorKind::option,
         fmt::format("the ranks have other options of a checkpoint manager: {}", drift)});
  }
  communicator_.agree([this] {
    signals_ = std::make_unique<checkpoint::StopSignals>(options_.signals);
    if (communicator_.rank() != 0) return;
    folder_ = std::make_unique<checkpoint::CheckpointFolder>(folder_path_, options_);
    newest_ = folder_->newest();
  });
  communicator_.broadcast(std::span(&newest_, 1));
  saved_at_ = options_.clock();
}

CheckpointManager::~CheckpointManager() = default;

void CheckpointManager::check_options() const {
  check_at_least("every_steps", 0, options_.every_steps);
  check_at_least("keep_last", 1, options_.keep_last);
  check_at_least("keep_best", 0, options_.keep_best);
  check_at_least("poll_every", 1, options_.poll_every);
  if (!(options_.every_minutes >= 0) || std::isinf(options_.every_minutes)) {
    throw OptionError(
        fmt::format("checkpoint manager: expected finite every_minutes >= 0, found {}",
                    options_.every_minutes));
  }
  if (!options_.clock) throw OptionError("checkpoint manager: no clock");
  std::vector<std::string> names{checkpoint::manager_item};
  for (const checkpoint::Item& item : items_) {
    if (std::find(names.begin(), names.end(), item.name) != names.end()) {
      throw NameError(fmt::format("two items of the checkpoint are called '{}'", item.name));
    }
    names.push_back(item.name);
  }
}

std::optional<std::int64_t> CheckpointManager::load_latest() {
  return load_first_sound(folder_ ? folder_->steps() : std::vector<std::int64_t>());
}

std::optional<std::int64_t> CheckpointManager::load_best() {
  std::vector<std::int64_t> steps;
  communicator_.agree([&] {
    if (folder_) steps = folder_->best_steps();
  });
  return load_first_sound(steps);
}

// `steps` are rank 0's.
std::optional<std::int64_t> CheckpointManager::load_first_sound(
    const std::vector<std::int64_t>& steps) {
  std::vector<std::pair<std::int64_t, std::string>> damaged;
  for (std::size_t i = 0;; ++i) {
    std::int64_t step = i < steps.size() ? steps[i] : -1;
    communicator_.broadcast(std::span(&step, 1));
    if (step < 0) break;
    Record record(step);
    try {
      checkpoint::load(path(step), communicator_, items_with(record));
    } catch (const CheckpointError&) {
      std::string damage;
      communicator_.agree([&] {
        if (folder_) damage = folder_->damage(step);
      });
      communicator_.broadcast(damage);
      if (damage.empty()) throw;  // it is sound, and does not fit
      damaged.emplace_back(step, damage);
      continue;
    }
    communicator_.agree([&] {
      if (!folder_) return;
      for (const auto& [unsound, damage] : damaged) folder_->set_aside(unsound, damage);
      folder_->add(step, record.metric());
      newest_ = folder_->newest();
    });
    communicator_.broadcast(std::span(&newest_, 1));
    went_on_to(step);
    return step;
  }
  if (damaged.empty()) return std::nullopt;
  std::string message =
      fmt::format("none of the checkpoints in '{}' can be used", folder_path_.string());
  for (const auto& [step, damage] : damaged) message += "; " + damage;
  throw_collective({ErrorKind::checkpoint, message});
}

bool CheckpointManager::step(std::int64_t step, std::optional<double> metric) {
  check_goes_on(step);
  if (step < step_) {
    throw StateError(fmt::format("step {} cannot follow step {}", step, step_));
  }
  const bool polls = reaches_multiple(options_.poll_every, std::exchange(step_, step), step);
  const std::int64_t need = polls ? agree_on_need() : 0;
  if (need > 1) stop_signal_ = static_cast<int>(need - 1);
  const bool due = reaches_multiple(options_.every_steps, std::max<std::int64_t>(saved_, 0), step);
  if (!due && need == 0) return false;
  save(step, metric);
  if (need > 1 && communicator_.rank() == 0) {
    log(LogLevel::info, fmt::format("saved step {} in '{}' and going to stop, because of signal {}",
                                    step, folder_path_.string(), stop_signal_));
  }
  return true;
}

// 0 where nothing has to be saved, 1 where it is time to save, 1 + a signal that has come.
std::int64_t CheckpointManager::agree_on_need() {
  const bool watches_time = options_.every_minutes > 0;
  const bool watches_signals = !options_.signals.empty() && !stop_requested();
  if (!watches_time && !watches_signals) return 0;
  std::int64_t need = 0;
  if (watches_time && communicator_.rank() == 0) {
    const std::chrono::duration<double, std::ratio<60>> passed = options_.clock() - saved_at_;
    need = passed.count() >= options_.every_minutes ? 1 : 0;
  }
  const int signal = watches_signals ? signals_->received() : 0;
  if (signal != 0) need = 1 + signal;
  return communicator_.all_reduce(need, ReduceOp::max);
}

void CheckpointManager::save(std::int64_t step, std::optional<double> metric) {
  if (metric && std::isnan(*metric)) metric.reset();
  communicator_.agree([&] {
    check_goes_on(step);
    if (folder_) folder_->check();
  });
  Record record(step, metric);
  checkpoint::save(path(step), communicator_, items_with(record));
  newest_ = step;
  went_on_to(step);
  communicator_.agree([&] {
    if (!folder_) return;
    folder_->add(step, metric);
    folder_->prune();
  });
}

void CheckpointManager::check_goes_on(std::int64_t step) const {
  if (step < 0) throw OptionError(fmt::format("expected a step >= 0, found {}", step));
  if (newest_ > saved_) {
    throw StateError(fmt::format(
        "the folder '{}' has a checkpoint of step {}, with which this run does not go on: call "
        "load_latest() first, or take another folder",
        folder_path_.string(), newest_));
  }
  if (step < saved_) {
    throw StateError(
        fmt::format("the folder '{}' has a checkpoint of step {}, so step {} cannot come "
                    "after it: to go back, take another folder",
                    folder_path_.string(), saved_, step));
  }
}

void CheckpointManager::went_on_to(std::int64_t step) {
  saved_ = step_ = step;
  saved_at_ = options_.clock();
}

std::vector<checkpoint::Item> CheckpointManager::items_with(Record& record) const {
  std::vector<checkpoint::Item> items = items_;
  items.emplace_back(checkpoint::manager_item, record);
  return items;
}

std::optional<std::int64_t> CheckpointManager::newest() const {
  return newest_ < 0 ? std::nullopt : std::optional(newest_);
}

std::filesystem::path CheckpointManager::path(std::int64_t step) const {
  return checkpoint::checkpoint_path(folder_path_, step);
}

}  // namespace lockstep
