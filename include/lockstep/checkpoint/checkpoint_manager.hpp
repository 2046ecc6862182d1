#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lockstep/checkpoint/background_saver.hpp"
#include "lockstep/checkpoint/checkpoint.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

namespace checkpoint {
class [[gnu::visibility("hidden")]] CheckpointFolder;
class [[gnu::visibility("hidden")]] StopSignals;
}  // namespace checkpoint

enum class BestMetric { lowest, highest };

/// All but `clock` must be alike on all ranks.
struct CheckpointManagerOptions {
  std::int64_t every_steps = 0;  ///< save at each multiple of it, or at the next step after; 0: not
  double every_minutes = 0;      ///< save when so long ago by rank 0's clock; 0: not
  std::int64_t keep_last = 3;    ///< how many of the newest stay; at least 1
  std::int64_t keep_best = 0;    ///< how many of those with the best metric stay beside them
  BestMetric best = BestMetric::lowest;
  /// Signals, such as SIGTERM and SIGUSR1, that mean: save once and stop.
  std::vector<int> signals = {};
  /// Steps from one agreement of all ranks on time and signals to the next.
  std::int64_t poll_every = 1;
  /// Whether step() returns while its file is still being written, as BackgroundSaver does it, unless a
  /// signal has come. What is to be deleted goes with the next save, or wait().
  bool background = false;
  /// What step() does then where a save is due and the one before goes on: refuse means that a later step
  /// saves.
  checkpoint::WhenBusy when_busy = checkpoint::WhenBusy::wait;
  /// Whether the folder is locked against other jobs; false for file systems without locks.
  bool lock = true;
  std::function<std::chrono::steady_clock::time_point()> clock = std::chrono::steady_clock::now;
};

/// The checkpoints of a run, in a folder of their own: saves them when they are due, keeps some,
/// and finds the newest that is sound.
///
///     CheckpointManager manager("run/checkpoints", world, {{"model", model}, {"progress", progress}},
///                               {.every_minutes = 10, .signals = {SIGTERM, SIGUSR1}});
///     manager.load_latest();
///     while (step < steps && !manager.stop_requested()) {
///       …
///       manager.step(++step);
///     }
///
/// Once a save, other than in the background, has returned on any rank, its state survives the end of all processes, and of power
/// where the disk honours fsync; until then load_latest() gives the one before. The checkpoint of
/// step 1200 is the file step-000001200.lockstep, as checkpoint::save() writes it, with "step" and, if
/// there is one, "metric" in its metadata. docs/checkpoints.md is the manual.
///
/// Steps of a folder only go on. So what is in it is loaded by load_latest() before more is saved;
/// a run that goes back takes another folder.
///
/// All calls are collective, with arguments that are alike on all ranks, and what they throw all
/// ranks throw, except where noted.
class CheckpointManager {
 public:
  /// Creates the folder where there is none, locks it, and removes what an interrupted save has
  /// left. The items' objects must outlive it. CheckpointError where the folder cannot be used, or
  /// is in use by another manager, whose process and host the message names; NameError for items of
  /// one name; OptionError for options that are out of range or differ between ranks. Handlers of
  /// the signals stay until the last manager with them goes; those of before are called as well.
  CheckpointManager(const std::string& folder, const Communicator& communicator,
                    std::vector<checkpoint::Item> items,
                    const CheckpointManagerOptions& options = {});
  /// Lets go of folder and signals when the last file is written; not collective.
  ~CheckpointManager();
  CheckpointManager(const CheckpointManager&) = delete;
  CheckpointManager& operator=(const CheckpointManager&) = delete;

  /// Restores the items from the newest checkpoint that is sound, all of which is read and checked,
  /// and returns its step; nothing where the folder has none. Where a newer one is damaged, a
  /// warning says what is wrong with it, and its file gets the suffix .damaged. CheckpointError, and
  /// nothing has changed, where all are damaged, and where the newest sound one does not fit.
  std::optional<std::int64_t> load_latest();

  /// The same for the checkpoint with the best metric; nothing where none has one. Where it is not
  /// the newest, nothing can be saved after it.
  std::optional<std::int64_t> load_best();

  /// To be called after each step of training, with the number of those that are done. Saves where
  /// that is due, and where a signal has come, and returns whether it has saved. A step that saves
  /// nothing costs nothing, or with `every_minutes` or `signals` an all-reduce of one number every
  /// `poll_every` steps. Throws as save() does; StateError, on this rank, where steps do not go on.
  bool step(std::int64_t step, std::optional<double> metric = std::nullopt);

  /// Saves now, on disk when it returns, and then deletes what is not to be kept. Replaces a
  /// checkpoint of this same step. A metric of NaN is none. Where it throws, the checkpoints there
  /// were are still there: CheckpointError where the file cannot be written; StateError where the
  /// ranks have drifted apart, or the folder has a later checkpoint or one that was not loaded.
  void save(std::int64_t step, std::optional<double> metric = std::nullopt);

  /// Returns when all that was saved is on disk, and deletes what is not to be kept. Throws what went wrong
  /// in the background.
  void wait();

  /// Whether a signal has come to any rank, and step() has saved for it: alike on all ranks after
  /// the same step. Not collective.
  bool stop_requested() const noexcept { return stop_signal_ != 0; }

  /// The step of the newest file in the folder, which may be damaged. Not collective.
  std::optional<std::int64_t> newest() const;

  /// Where the checkpoint of a step is, if there is one. Not collective.
  std::string path(std::int64_t step) const;

 private:
  void check_options() const;
  void check_goes_on(std::int64_t step) const;
  std::int64_t agree_on_need();
  std::optional<std::int64_t> load_first_sound(const std::vector<std::int64_t>& steps);
  std::optional<double> load(std::int64_t step);
  bool save(std::int64_t step, std::optional<double> metric, bool background);
  void went_on_to(std::int64_t step);

  std::string folder_path_;
  Communicator communicator_;
  std::vector<checkpoint::Item> items_;
  CheckpointManagerOptions options_;
  std::unique_ptr<checkpoint::CheckpointFolder> folder_;  // on rank 0
  checkpoint::BackgroundSaver saver_;
  // Handed to the saver, and not known to be on disk: step and metric.
  std::optional<std::pair<std::int64_t, std::optional<double>>> pending_;
  std::unique_ptr<checkpoint::StopSignals> signals_;
  std::int64_t newest_ = -1;  // in the folder
  std::int64_t saved_ = -1;   // saved or loaded last
  std::int64_t step_ = 0;     // the last one that step() or save() was told
  std::chrono::steady_clock::time_point saved_at_;
  int stop_signal_ = 0;
};

}  // namespace lockstep

#pragma GCC visibility pop
