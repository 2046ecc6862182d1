#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/state/stateful.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

struct ReplicaCheckOptions {
  std::int64_t every = 100;  ///< steps from one check to the next; at least 1
};

/// Watches that replicas stay equal: every so many steps, the states of all ranks are compared, by
/// hashes (XXH3) of their bits. Of a TensorPart it is the shape and dtype of the whole.
///
///     ReplicaCheck check(world, {{"model", model}, {"optimizer", optimizer}});
///     for (…) {
///       …
///       optimizer.step();
///       check.step();
///     }
///
/// Compared is what a checkpoint holds: parameters, buffers, the counts of random numbers drawn, slots,
/// hyper-parameters; not the streams of random numbers, in which ranks differ. 0 and -0 differ; NaN
/// equals the same NaN. A check reads the state once, and costs two small all-reduces beside.
///
/// state_dict() is {"steps": 300, "last_alike": 200}.
class ReplicaCheck : public Stateful {
 public:
  /// Something whose state all ranks have alike, and the name it goes by in messages.
  struct Item {
    Item(std::string name, const Stateful& object) : name(std::move(name)), object(&object) {}

    std::string name;
    const Stateful* object;
  };

  /// Collective. The objects must outlive it. On all ranks NameError where two items have one name, and
  /// OptionError for no items, or for items or options that differ or are out of range.
  ReplicaCheck(const Communicator& communicator, std::vector<Item> items,
               const ReplicaCheckOptions& options = {});

  /// Counts a step, after each of which all ranks call this; a check where one is due.
  void step();

  /// A check now. Collective. StateError on all ranks where the replicas differ: it names the first few
  /// entries by their paths in the state, which ranks differ from which, the step, and the
  /// first step that may be to blame. The count of step() is compared as well, and stays as it was where
  /// a check fails.
  void check();

  std::int64_t steps() const noexcept { return steps_; }

  StateDict state_dict() const override;
  /// StateError for numbers that cannot be.
  void check_restore(const StateDict& source) const override;
  void restore(const StateDict& source) override;

 private:
  void compare(std::int64_t step);

  Communicator communicator_;
  std::vector<Item> items_;
  std::int64_t every_;
  std::int64_t steps_ = 0;
  std::int64_t last_alike_ = -1;  // the step of the last check that found no difference; none yet
};

}  // namespace lockstep

#pragma GCC visibility pop
