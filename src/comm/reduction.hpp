#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "comm/job.hpp"
#include "comm/lanes.hpp"
#include "comm/node_reduction.hpp"
#include "comm/wait.hpp"
#include "lockstep/comm/node_memory.hpp"
#include "lockstep/comm/wire.hpp"
#include "lockstep/core/part_begin.hpp"

namespace lockstep::comm {

class CodecExchange;
class KeptCommunicator;
class NodeExchange;
class NodeSums;
class ShareExchange;

/// Sums in one binary tree over `count` arrays, a power of two, of which each rank has some. The
/// first slots of a segment, of `slot_bytes`, hold what these come down to: subtrees_of(range). The
/// pieces of a job are ranges of a slot.
struct Parts {
  std::int64_t count = 0;  ///< 0 for one array a rank, and no tree
  std::size_t slot_bytes = 0;

  struct Range {
    std::int64_t begin, end;
  };
  /// The parts of a rank.
  Range of(int rank, int ranks) const noexcept {
    return {part_begin(count, rank, ranks), part_begin(count, rank + 1, ranks)};
  }
};

/// Reduces ranges of segments, one of each rank, into one result a node, which all of its ranks
/// read. On a node every rank combines its share of a range for all. Between nodes the sums of
/// these shares travel, each by the rank that made it.
///
/// Each number of the result is combined from those of the ranks of a node in order, and then from
/// the nodes' in order: the same bits on all ranks, and in memory that is shared as in memory that
/// is not. How a range is cut makes no difference. With Parts it is combined in one tree, whatever
/// the ranks and nodes are.
///
/// Every rank starts the same reductions in the same order, and completes them by poll() or wait().
/// Ranks that do not agree in what they reduce get a StateError on all, after which nothing can be
/// reduced any more. The communicator must live as long, and be used by no other Reduction.
class Reduction {
 public:
  /// Collective. At most `capacity` reductions can be under way; start() waits for room. With Parts,
  /// the format is `full`.
  Reduction(const Communicator& communicator, std::size_t segment_bytes, std::size_t capacity,
            const Parts& parts = {}, WireFormat wire = WireFormat::full);
  /// Local; other ranks that wait for this one get an error if they share its memory.
  ~Reduction();
  Reduction(const Reduction&) = delete;
  Reduction& operator=(const Reduction&) = delete;

  /// What this rank contributes: not to be written between start() and completion.
  std::byte* segment() const noexcept { return memory_.own().data(); }
  /// To be read between completion and the next start() of the same range. With one rank alone it is
  /// the segment itself.
  std::byte* result() const noexcept { return result_; }
  const std::shared_ptr<void>& memory() const noexcept { return memory_.owner(); }
  bool shared() const noexcept { return memory_.shared(); }
  /// Who exchanges what with other nodes.
  const Lanes& lanes() const noexcept { return lanes_; }

  void start(const Job& job);
  /// Nothing is reduced from now on, here and on the ranks that wait for this one.
  void set_failed(const std::string& message, ErrorKind kind = ErrorKind::state);
  /// Goes on with what is under way, without waiting; returns whether all of it is complete.
  bool poll();
  /// Throws where another rank has failed or left, for which poll() looks now and then only.
  void check_others();
  /// Until so many reductions are complete, of those started so far; all of them if not said. DeadlineError where
  /// other ranks do not go on.
  void wait(std::uint64_t count);
  void wait() { wait(node_->started()); }
  /// What a rank does between two polls, until the deadline of the communicator has passed.
  Wait new_wait() const noexcept;
  /// Gives up a wait for the others: throws DeadlineError, here and on the ranks that wait for this one.
  /// `of` says more of what is reduced.
  [[noreturn]] void give_up(const Wait& wait, std::string_view of = {});
  /// Who is missing in the next reduction to complete, and which that is.
  std::string describe_missing() const;
  /// How many reductions are complete, of those started.
  std::uint64_t completed() const noexcept { return node_->completed(); }

 private:
  bool go_on();
  std::set<int> ranks_with_messages() const;
  void check_left();
  void pause(Wait& wait) {
    if (!wait.pause()) give_up(wait);
    wait.tell([this] { return describe_missing(); });
  }

  // No Communicator, which may be the owner of this.
  int rank_;
  std::chrono::milliseconds deadline_;
  std::shared_ptr<KeptCommunicator> kept_;
  NodeMemory memory_;
  Lanes lanes_;
  std::byte* result_;
  std::optional<NodeReduction> node_;
  std::unique_ptr<NodeSums> sums_;  // where there are several nodes
  std::unique_ptr<NodeExchange> exchange_;
  std::unique_ptr<CodecExchange> codecs_;
  std::unique_ptr<ShareExchange> shares_;
  MPI_Comm communicator_;
  // When check_left() has looked, or seen that this goes on: by how many were started and completed.
  std::chrono::steady_clock::time_point looked_{};
  std::uint64_t looked_at_ = 0;
  bool failed_ = false;
  std::uint32_t polls_ = 0;  // without success
};

}  // namespace lockstep::comm
