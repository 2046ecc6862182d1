#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/folder_lock.hpp"
#include "lockstep/checkpoint/checkpoint_manager.hpp"

namespace lockstep::checkpoint {

/// step-000001200.lockstep
std::filesystem::path checkpoint_path(const std::filesystem::path& folder, std::int64_t step);

/// What a manager puts into the metadata of a checkpoint.
struct SavedStep {
  std::int64_t step = 0;
  std::optional<double> metric = std::nullopt;

  StateDict metadata() const;
  /// None where no manager has written it.
  static std::optional<SavedStep> of(const StateDict& metadata);
};

/// The files of a CheckpointManager, on the one rank that reads and writes them. Throws
/// CheckpointError.
class CheckpointFolder {
 public:
  CheckpointFolder(const std::filesystem::path& folder, const CheckpointManagerOptions& options);

  /// The newest first.
  std::vector<std::int64_t> steps() const;
  /// The step of the newest; -1 where there is none.
  std::int64_t newest() const;
  /// Those with a metric, the best first, and of equal ones the newest. Reads what is not known yet, and
  /// sets the damaged aside.
  std::vector<std::int64_t> best_steps();

  /// That it is still there.
  void check() const;
  /// That a file is of the step that its name says, by its header alone.
  void check_step(std::int64_t step) const;
  /// Why a file cannot be read; empty where it can.
  std::string damage(std::int64_t step) const;
  /// Takes a damaged file out of the folder's checkpoints, by a suffix, with a warning.
  void set_aside(std::int64_t step, const std::string& damage);

  /// To be called before a step is saved: no memory is needed for it later.
  void begin(std::int64_t step);
  /// That save has failed, which may have left its file.
  void abandon(std::int64_t step);
  /// Its file is there.
  void add(std::int64_t step, std::optional<double> metric);
  /// Deletes all but the newest and the best, as many as the options say. Warns where that fails.
  void prune();

 private:
  struct Entry {
    bool known = false;  // whether the metric was read
    std::optional<double> metric;
  };

  std::filesystem::path folder_;
  CheckpointManagerOptions options_;
  std::optional<FolderLock> lock_;
  std::map<std::int64_t, Entry> entries_;
};

}  // namespace lockstep::checkpoint
