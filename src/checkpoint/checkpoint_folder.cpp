#include "checkpoint/checkpoint_folder.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <set>
#include <string_view>
#include <system_error>

#include "checkpoint/file_system.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/core/log.hpp"

namespace lockstep::checkpoint {
namespace {

namespace fs = std::filesystem;

/// The step of a file's name; nothing where it is no checkpoint of a manager's.
std::optional<std::int64_t> step_of(const std::string& name) {
  constexpr std::string_view begin = "step-";
  std::int64_t step = 0;
  if (!name.starts_with(begin)) return std::nullopt;
  std::from_chars(name.data() + begin.size(), name.data() + name.size(), step);
  if (checkpoint_path({}, step) != name) return std::nullopt;
  return step;
}

/// Makes a folder and those above it, so that their names are on disk.
void make_folder(const fs::path& folder) {
  std::error_code error;
  if (fs::is_directory(folder, error)) return;
  if (!folder.has_filename()) return make_folder(folder.parent_path());  // "run/" ends in a slash
  if (fs::exists(folder, error)) {
    throw CheckpointError(fmt::format("'{}' is no folder", folder.string()));
  }
  const fs::path above = folder.has_parent_path() ? folder.parent_path() : fs::path(".");
  make_folder(above);
  fs::create_directory(folder, error);
  if (error) {
    throw CheckpointError(
        fmt::format("cannot create the folder '{}': {}", folder.string(), error.message()));
  }
  posix_file_system()->sync_folder(above);
}

}  // namespace

fs::path checkpoint_path(const fs::path& folder, std::int64_t step) {
  return folder / fmt::format("step-{:09}.lockstep", step);
}

StateDict SavedStep::metadata() const {
  StateDict metadata{{"step", step}};
  if (metric) metadata["metric"] = *metric;
  return metadata;
}

std::optional<SavedStep> SavedStep::of(const StateDict& metadata) {
  const auto entry = [&metadata]<class T>(const char* name, T) {
    return metadata.contains(name) ? std::get_if<T>(&metadata.at(name).variant()) : nullptr;
  };
  const auto* step = entry("step", std::int64_t());
  if (step == nullptr) return std::nullopt;
  const auto* metric = entry("metric", double());
  return SavedStep{*step, metric == nullptr ? std::nullopt : std::optional(*metric)};
}

CheckpointFolder::CheckpointFolder(const fs::path& folder, const CheckpointManagerOptions& options)
    : folder_(folder), options_(options) {
  make_folder(folder);
  if (options.lock) lock_.emplace(folder);
  std::error_code error;
  std::vector<fs::path> leftovers;
  for (auto entry = fs::directory_iterator(folder, error); !error && entry != fs::end(entry);
       entry.increment(error)) {
    const fs::path& path = entry->path();
    if (path.extension() == ".tmp" && step_of(path.stem().string())) leftovers.push_back(path);
    if (const auto step = step_of(path.filename().string())) entries_.emplace(*step, Entry());
  }
  if (error) {
    throw CheckpointError(
        fmt::format("cannot list the folder '{}': {}", folder.string(), error.message()));
  }
  for (const fs::path& path : leftovers) fs::remove(path, error);
}

std::vector<std::int64_t> CheckpointFolder::steps() const {
  std::vector<std::int64_t> steps;
  for (const auto& [step, entry] : entries_) steps.push_back(step);
  std::reverse(steps.begin(), steps.end());
  return steps;
}

std::int64_t CheckpointFolder::newest() const {
  return entries_.empty() ? -1 : entries_.rbegin()->first;
}

std::vector<std::int64_t> CheckpointFolder::best_steps() {
  std::vector<std::int64_t> best;
  for (const std::int64_t step : steps()) {
    Entry& entry = entries_.at(step);
    try {
      if (!entry.known) {
        const auto saved = SavedStep::of(verify_file(checkpoint_path(folder_, step)).metadata);
        if (saved) entry.metric = saved->metric;
        entry.known = true;
      }
      if (entry.metric) best.push_back(step);
    } catch (const CheckpointError& error) {
      set_aside(step, error.what());
    }
  }
  std::stable_sort(best.begin(), best.end(), [this](std::int64_t a, std::int64_t b) {
    const double x = *entries_.at(a).metric, y = *entries_.at(b).metric;
    return options_.best == BestMetric::lowest ? x < y : x > y;
  });
  return best;
}

void CheckpointFolder::check() const {
  if (lock_) lock_->check();
}

void CheckpointFolder::check_step(std::int64_t step) const {
  const fs::path path = checkpoint_path(folder_, step);
  const std::optional<SavedStep> saved = SavedStep::of(file_info(path).metadata);
  if (saved && saved->step == step) return;
  throw CheckpointError(fmt::format(
      "the checkpoint '{}' cannot be used: {}", path.string(),
      saved
          ? fmt::format("it is that of step {}, not of step {} as its name says", saved->step, step)
          : "its metadata have no step: no CheckpointManager has written it"));
}

std::string CheckpointFolder::damage(std::int64_t step) const {
  try {
    verify_file(checkpoint_path(folder_, step));
    return {};
  } catch (const CheckpointError& error) {
    return error.what();
  }
}

void CheckpointFolder::set_aside(std::int64_t step, const std::string& damage) {
  const fs::path path = checkpoint_path(folder_, step);
  fs::path renamed = path;
  renamed += ".damaged";
  std::error_code error;
  fs::rename(path, renamed, error);
  if (error && error != std::errc::no_such_file_or_directory) {
    throw CheckpointError(fmt::format("{}; and it cannot be renamed to '{}': {}", damage,
                                      renamed.string(), error.message()));
  }
  entries_.erase(step);
  log(LogLevel::warning,
      fmt::format("{}; it is not used{}", damage,
                  error ? "" : ", and called '" + renamed.filename().string() + "' now"));
}

void CheckpointFolder::begin(std::int64_t step) { entries_[step] = {}; }

void CheckpointFolder::abandon(std::int64_t step) {
  std::error_code error;
  if (!fs::exists(checkpoint_path(folder_, step), error)) entries_.erase(step);
}

void CheckpointFolder::add(std::int64_t step, std::optional<double> metric) {
  entries_[step] = {.known = true, .metric = metric};
}

void CheckpointFolder::prune() {
  std::set<std::int64_t> kept;
  const auto keep = [&kept](const std::vector<std::int64_t>& steps, std::int64_t count) {
    const auto most = std::min(static_cast<std::size_t>(count), steps.size());
    kept.insert(steps.begin(), steps.begin() + static_cast<std::ptrdiff_t>(most));
  };
  if (options_.keep_best > 0) keep(best_steps(), options_.keep_best);
  keep(steps(), options_.keep_last);
  for (const std::int64_t step : steps()) {
    if (kept.contains(step)) continue;
    const fs::path path = checkpoint_path(folder_, step);
    std::error_code error;
    fs::remove(path, error);
    if (error) {
      log(LogLevel::warning,
          fmt::format("cannot remove the checkpoint '{}': {}", path.string(), error.message()));
    }
    entries_.erase(step);
  }
}

}  // namespace lockstep::checkpoint
