#pragma once

#include <memory>
#include <string>
#include <vector>

#include "lockstep/checkpoint/checkpoint.hpp"
#include "lockstep/comm/communicator.hpp"

#pragma GCC visibility push(default)

namespace lockstep::checkpoint {

/// What a save does while the one before is still being written.
enum class WhenBusy { wait, refuse };

/// Saves checkpoints while training goes on: rank 0 copies the state, and a thread of it, which makes no
/// MPI calls and handles no signals, writes and syncs the file.
///
/// All calls but the destructor are collective. An error of the thread is thrown on all ranks by the next
/// call, which does nothing else then.
class BackgroundSaver {
 public:
  explicit BackgroundSaver(const Communicator& communicator, WhenBusy when_busy = WhenBusy::wait);
  /// Waits until the file is written; not collective. An error that no call has thrown is a warning.
  ~BackgroundSaver();
  BackgroundSaver(const BackgroundSaver&) = delete;
  BackgroundSaver& operator=(const BackgroundSaver&) = delete;

  /// What checkpoint::save() does, but returns when rank 0 has a copy of the state, which may change then.
  /// What other ranks alone have, they send in this call. Returns false, and has done nothing, where the
  /// save before goes on and that is to be refused. The memory of the copy is kept for the next save.
  /// Throws as save() does.
  bool save_async(const std::string& path, const std::vector<Item>& items,
                  const SaveOptions& options = {});

  /// Whether the last save goes on.
  bool is_busy() const;

  /// Returns when the last save is complete on disk.
  void wait();

 private:
  struct [[gnu::visibility("hidden")]] Writing;  // in a thread

  std::uint64_t copy(Tensor& tensor);

  Communicator communicator_;
  WhenBusy when_busy_;
  std::unique_ptr<Writing> writing_;  // on rank 0, of the save that goes on or has ended last
  std::vector<Tensor> copies_;        // of what all ranks have, in order
  std::size_t next_ = 0;              // copy to use
};

}  // namespace lockstep::checkpoint

#pragma GCC visibility pop
