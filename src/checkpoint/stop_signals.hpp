#pragma once

#include <vector>

namespace lockstep::checkpoint {

/// Notes that signals have come to this process. Handlers are there as long as any object has them; they
/// call those that were there before, and give way to them again, unless others have come since.
class StopSignals {
 public:
  /// OptionError for a signal that cannot be caught.
  explicit StopSignals(const std::vector<int>& signals);
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  /// One of the signals that have come since the first object with it was made; 0 for none.
  int received() const noexcept;

 private:
  void release() noexcept;

  std::vector<int> signals_;
};

}  // namespace lockstep::checkpoint
