#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/training.hpp"
#include "lockstep/checkpoint/checkpoint_manager.hpp"

namespace lockstep::testing {

/// Ranks that save one number, by managers of one folder.
class ManagedFolder : public ::testing::Test {
 protected:
  std::filesystem::path path(std::string_view name = "") const { return folder_ / "run" / name; }
  static std::string file(std::int64_t step) {
    const std::string digits = std::to_string(step);
    return "step-" + std::string(9 - digits.size(), '0') + digits + ".lockstep";
  }

  /// The files of the folder but its lock, by name; the same on all ranks. Collective.
  std::vector<std::string> files() const {
    world().barrier();
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path())) {
      if (entry.path().filename() != ".lock") names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    world().barrier();
    return names;
  }
  static std::vector<std::string> files_of(const std::vector<std::int64_t>& steps) {
    std::vector<std::string> names;
    for (const std::int64_t step : steps) names.push_back(file(step));
    return names;
  }

  /// Changes the folder on rank 0, between barriers. Collective.
  template <class Change>
  void change(Change&& change) const {
    world().barrier();
    if (world().rank() == 0) change();
    world().barrier();
  }

  std::vector<checkpoint::Item> items() { return {{"state", state_}}; }

  void save(CheckpointManager& manager, std::int64_t step,
            std::optional<double> metric = std::nullopt) {
    number_ = static_cast<double>(step);
    manager.save(step, metric);
  }
  /// Saves steps by a manager that goes again.
  void save_all(const std::vector<std::int64_t>& steps) {
    CheckpointManager manager(path(), world(), items(), {.keep_last = 100});
    manager.load_latest();
    for (const std::int64_t step : steps) save(manager, step);
    number_ = -1;
  }

  SharedFolder folder_;
  double number_ = -1;
  Scalars state_{{{"number", &number_}}};
};

}  // namespace lockstep::testing
