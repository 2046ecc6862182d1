#pragma once

#include <mpi.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lockstep/comm/placement.hpp"
#include "lockstep/comm/reduce_op.hpp"
#include "lockstep/core/half.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

namespace comm {
class [[gnu::visibility("hidden")]] Calls;
}

/// What LOCKSTEP_DEADLINE says, in seconds, and 10 minutes where it is not set. OptionError where it is no such
/// number.
std::chrono::milliseconds default_deadline();

struct CommunicatorOptions {
  /// Whether ranks of a node may work in memory that they share. Must be alike on all ranks.
  bool share_memory = true;
  /// Ranks of one machine that give different numbers count as on different nodes, as may be best
  /// for those of different sockets. All ranks must give one, or none.
  std::optional<int> node = std::nullopt;
  /// How long this rank waits in a collective call, or for a reduction, until others come to it and go on with it; 0
  /// is for ever. Then it is a DeadlineError.
  std::chrono::milliseconds deadline = default_deadline();
};

/// A duplicate of the caller's MPI communicator, so that messages never mix with the caller's own.
/// A handle: copies refer to the same duplicate.
///
/// Collective calls are made by every rank in the same order. Where ranks do not make the same one,
/// such as a barrier and a broadcast, or broadcasts from different roots, all get a StateError that
/// says what two of them have asked for; no collective call on this communicator works after that.
/// (The constructor, the first placement(), and close() are not told to others before.) Failures of MPI
/// are MpiError, a root that is no rank is an OptionError. Where others do not come, it is a DeadlineError that says who
/// as far as it is known; no collective call works after that either, and what the call was to fill may still be
/// written to.
/// T is float, double, std::int64_t or std::uint8_t; in all_reduce also float16 or bfloat16.
class Communicator {
 public:
  /// Duplicates; collective over `communicator`. After a DeadlineError of this one, MPI may be unable to make other
  /// communicators until the ranks that are missing have come to it.
  explicit Communicator(MPI_Comm communicator, const CommunicatorOptions& options = {});

  int rank() const noexcept;
  int size() const noexcept;
  MPI_Comm handle() const noexcept;

  const CommunicatorOptions& options() const noexcept;

  /// Which ranks are on one node. The first call is collective.
  const Placement& placement() const;

  /// Another duplicate, with the same options; collective. Frees those which it has made before, and which no rank has
  /// any more.
  Communicator duplicate() const;

  /// Frees the duplicate, and those of its duplicates which no rank has any more; collective. Without it the duplicate
  /// of the last handle that goes is kept, since a destructor must not wait for other ranks: until the communicator
  /// that it was made of by duplicate() makes another or is closed, or until MPI is finalised. StateError in any use
  /// after it.
  void close();

  /// Combines element by element over all ranks; every rank gets the result, with the same bits on
  /// all. Sums of float16 and bfloat16 are made in float. Collective; size, type and `op` must agree.
  /// OptionError for the mean of integers.
  ///
  /// Up to 64 KiB, and half precision of any length, go through memory that the ranks of a node
  /// share; longer spans are MPI_Allreduce's. SharedBuffer is faster, since nothing is copied.
  template <class T>
  void all_reduce(std::span<T> values, ReduceOp op = ReduceOp::sum) const;
  template <class T>
  T all_reduce(T value, ReduceOp op = ReduceOp::sum) const {
    all_reduce(std::span<T>(&value, 1), op);
    return value;
  }

  /// Copies root's values to every rank. Collective; spans must agree in size.
  template <class T>
  void broadcast(std::span<T> values, int root = 0) const;
  void broadcast_bytes(void* bytes, std::size_t size, int root = 0) const;
  /// A string of any length; on other ranks than root its contents are replaced.
  void broadcast(std::string& text, int root = 0) const;

  /// Every rank's values, in rank order, on root; nothing on the others. Collective; spans must
  /// agree in size.
  template <class T>
  std::vector<T> gather(std::span<const T> values, int root = 0) const;
  /// Every rank's text, in rank order, on root; nothing on the others. Collective.
  std::vector<std::string> gather(const std::string& text, int root = 0) const;

  /// Waits until all ranks have come here. Collective.
  void barrier() const;

  /// Runs work that may fail on one rank alone, such as reading a file. Collective: where it throws
  /// on any rank, every rank throws the exception of the lowest such rank, marked collective(),
  /// whose message ends with "(rank R)" unless that error was collective already. `work` itself
  /// must not call collectives that other ranks do not also reach.
  template <class Work>
  void agree(Work&& work) const {
    agree_on(std::ref(work));  // which, unlike a copy of the work, needs no memory
  }

 private:
  friend class comm::Calls;
  struct [[gnu::visibility("hidden")]] Duplicate;

  explicit Communicator(std::shared_ptr<Duplicate> duplicate);

  void agree_on(const std::function<void()>& work) const;
  void free_dropped() const;

  std::shared_ptr<Duplicate> duplicate_;
};

}  // namespace lockstep

#pragma GCC visibility pop
