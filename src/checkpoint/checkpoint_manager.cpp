#include "lockstep/checkpoint/checkpoint_manager.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <span>
#include <string>
#include <utility>

#include "checkpoint/checkpoint_folder.hpp"
#include "checkpoint/gather.hpp"
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

std::vector<NamedHash> describe(const std::string& folder,
                                const CheckpointManagerOptions& options) {
  return {hash_of("folder", folder),
          hash_of("every_steps", fmt::format("{}", options.every_steps)),
          hash_of("every_minutes", fmt::format("{}", options.every_minutes)),
          hash_of("keep_last", fmt::format("{}", options.keep_last)),
          hash_of("keep_best", fmt::format("{}", options.keep_best)),
          hash_of("best", fmt::format("{}", static_cast<int>(options.best))),
          hash_of("signals", fmt::format("{}", fmt::join(options.signals, " "))),
          hash_of("poll_every", fmt::format("{}", options.poll_every)),
          hash_of("background", fmt::format("{}", options.background)),
          hash_of("when_busy", fmt::format("{}", static_cast<int>(options.when_busy))),
          hash_of("lock", fmt::format("{}", options.lock))};
}

void check_at_least(const char* name, std::int64_t least, std::int64_t value) {
  if (value >= least) return;
  throw OptionError(
      fmt::format("checkpoint manager: expected {} >= {}, found {}", name, least, value));
}

}  // namespace

CheckpointManager::CheckpointManager(const std::string& folder, const Communicator& communicator,
                                     std::vector<checkpoint::Item> items,
                                     const CheckpointManagerOptions& options)
    : folder_path_(folder),
      communicator_(communicator),
      items_(std::move(items)),
      options_(options),
      saver_(communicator_) {
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
  checkpoint::check_names(items_);
}

std::optional<std::int64_t> CheckpointManager::load_latest() {
  wait();
  std::vector<std::int64_t> steps;
  communicator_.agree([&] {
    if (folder_) steps = folder_->steps();
  });
  return load_first_sound(steps);
}

std::optional<std::int64_t> CheckpointManager::load_best() {
  wait();
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
    std::optional<double> metric;
    try {
      metric = load(step);
    } catch (const CheckpointError&) {
      std::string damage;
      communicator_.agree([&] {
        if (folder_) damage = folder_->damage(step);
      });
      communicator_.broadcast(damage);
      if (damage.empty()) throw;  // it is sound, and does not fit
      communicator_.agree([&] { damaged.emplace_back(step, damage); });
      continue;
    }
    communicator_.agree([&] {
      if (!folder_) return;
      for (const auto& [unsound, damage] : damaged) folder_->set_aside(unsound, damage);
      folder_->add(step, metric);
      newest_ = folder_->newest();
    });
    communicator_.broadcast(std::span(&newest_, 1));
    went_on_to(step);
    return step;
  }
  if (damaged.empty()) return std::nullopt;
  std::string message = fmt::format("none of the checkpoints in '{}' can be used", folder_path_);
  for (const auto& [step, damage] : damaged) message += "; " + damage;
  throw_collective({ErrorKind::checkpoint, message});
}

// Restores the items, and returns the metric.
std::optional<double> CheckpointManager::load(std::int64_t step) {
  std::string file;
  communicator_.agree([&] {
    file = path(step);
    if (folder_) folder_->check_step(step);
  });
  const StateDict metadata = checkpoint::load(file, communicator_, items_).metadata;
  return checkpoint::SavedStep::of(metadata)->metric;
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
  if (!save(step, metric, options_.background && need < 2)) return false;
  if (need > 1 && communicator_.rank() == 0) {
    log(LogLevel::info, fmt::format("saved step {} in '{}' and going to stop, because of signal {}",
                                    step, folder_path_, stop_signal_));
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
  save(step, metric, false);
}

bool CheckpointManager::save(std::int64_t step, std::optional<double> metric, bool background) {
  if (metric && std::isnan(*metric)) metric.reset();
  communicator_.agree([&] {
    check_goes_on(step);
    if (folder_) folder_->check();
  });
  const bool refuses = background && options_.when_busy == checkpoint::WhenBusy::refuse;
  if (refuses && saver_.is_busy()) return false;
  wait();
  try {
    std::string file;
    checkpoint::SaveOptions options;
    communicator_.agree([&] {
      file = path(step);
      options.metadata = checkpoint::SavedStep{step, metric}.metadata();
      if (folder_) folder_->begin(step);
    });
    if (background) {
      saver_.save_async(file, items_, options);
    } else {
      checkpoint::save(file, communicator_, items_, options);
    }
  } catch (const Error&) {
    if (folder_) folder_->abandon(step);
    throw;
  }
  pending_.emplace(step, metric);
  went_on_to(step);
  if (!background) wait();
  return true;
}

void CheckpointManager::wait() {
  if (!pending_) return;
  const auto [step, metric] = *std::exchange(pending_, std::nullopt);
  try {
    saver_.wait();
  } catch (const Error&) {
    if (folder_) folder_->abandon(step);
    throw;
  }
  newest_ = std::max(newest_, step);
  communicator_.agree([&, step = step, metric = metric] {
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
        folder_path_, newest_));
  }
  if (step < saved_) {
    throw StateError(
        fmt::format("the folder '{}' has a checkpoint of step {}, so step {} cannot come "
                    "after it: to go back, take another folder",
                    folder_path_, saved_, step));
  }
}

void CheckpointManager::went_on_to(std::int64_t step) {
  saved_ = step_ = step;
  saved_at_ = options_.clock();
}

std::optional<std::int64_t> CheckpointManager::newest() const {
  return newest_ < 0 ? std::nullopt : std::optional(newest_);
}

std::string CheckpointManager::path(std::int64_t step) const {
  return checkpoint::checkpoint_path(folder_path_, step).string();
}

}  // namespace lockstep
