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

/// The name of a manager's own item.
inline constexpr const char* manager_item = "checkpoint_manager";

/// step-000001200.lockstep
std::filesystem::path checkpoint_path(const std::filesystem::path& folder, std::int64_t step);

/// The step and metric of a checkpoint, as its own item has them. StateError or NameError where they
/// are not there.
struct SavedStep {
  explicit SavedStep(const StateDict& state);

  std::int64_t step;
  std::optional<double> metric;
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
  /// Why a file cannot be read; empty where it can.
  std::string damage(std::int64_t step) const;
  /// Takes a damaged file out of the folder's checkpoints, by a suffix, with a warning.
  void set_aside(std::int64_t step, const std::string& damage);

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
