#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "comm/announcement.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep::comm {

/// How the ranks of a node tell each other, in memory that they share, which reductions they have
/// begun and finished. Reductions have numbers, from 1, and each rank begins and finishes them in
/// order. What a rank has written before it announces one, or is done with one, can be read by
/// whoever has seen that.
class NodeProtocol {
 public:
  /// Bytes of shared memory, zero to begin with and at a 128-byte boundary. A rank must not announce
  /// reduction n before all are done with reduction n - capacity.
  static std::size_t bytes(int ranks, std::size_t capacity) noexcept;

  NodeProtocol(std::byte* memory, int rank, int ranks, std::size_t capacity) noexcept;

  void announce(const Announcement& announcement) noexcept;
  bool all_announced(std::uint64_t sequence) noexcept;
  /// Of a rank for which all_announced() was true.
  const Announcement& announcement(int rank, std::uint64_t sequence) const noexcept;

  /// This rank has written its share of the result.
  void finish(std::uint64_t sequence) noexcept;
  bool all_finished(std::uint64_t sequence) noexcept;

  /// Tells the others why none of this can go on; the first word counts.
  void fail(const ErrorReport& report) noexcept;
  /// What a rank has failed with.
  std::optional<ErrorReport> failure() const;

  /// This rank takes part in nothing more.
  void leave() noexcept;
  /// A rank that has left before it was done with that reduction; -1 where there is none.
  int who_left_before(std::uint64_t sequence) const noexcept;
  /// Those that have not announced a reduction, and those that have, but have not written their shares.
  std::vector<int> not_announced(std::uint64_t sequence) const;
  std::vector<int> not_finished(std::uint64_t sequence) const;

 private:
  // A line of cache is written by one rank. Two of them are fetched at a time, hence 128 bytes.
  struct alignas(64) Announced {
    std::atomic<std::uint64_t> sequence;
    Announcement announcement;
  };
  struct alignas(128) Progress {
    std::atomic<std::uint64_t> finished;
    std::atomic<std::uint32_t> left;
  };
  struct alignas(128) Failure {
    std::atomic<std::uint32_t> state;  // 0, 1 while it is being written, 2
    ErrorKind kind;
    char message[507];
  };
  static_assert(sizeof(Announced) == 64 && std::atomic<std::uint64_t>::is_always_lock_free &&
                std::atomic<std::uint32_t>::is_always_lock_free);

  Announced& announced(int rank, std::uint64_t sequence) const noexcept {
    return announced_[static_cast<std::size_t>(rank) * capacity_ + sequence % capacity_];
  }

  int rank_;
  int ranks_;
  std::size_t capacity_;
  Failure* failure_;
  Progress* progress_;
  Announced* announced_;
  std::uint64_t announced_sequence_ = 0;
  int announced_by_ = 0;  // ranks of which it is known that they have announced that one
  int finished_by_ = 0;
};

}  // namespace lockstep::comm
