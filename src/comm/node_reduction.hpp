#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "comm/job.hpp"
#include "comm/node_protocol.hpp"
#include "comm/sum_order.hpp"

namespace lockstep::comm {

/// The memory of a node as one of its ranks sees it.
struct NodeView {
  /// One of the arrays that are combined: where it begins, from `segments`, and whose it is.
  struct Source {
    std::size_t offset;
    int place;
  };

  std::vector<int> ranks;  ///< of the node
  int place = 0;           ///< of this rank among them
  std::byte* segments = nullptr;
  std::vector<Source> sources;
  SumOrder order;                ///< in which sources are combined
  std::byte* control = nullptr;  ///< NodeProtocol::bytes()
  std::byte* result = nullptr;   ///< may be the segment where this rank is alone
};

/// The part of a Reduction that takes place in the memory of one node. Knows no MPI: its ranks may
/// as well be threads.
class NodeReduction {
 public:
  NodeReduction(const NodeView& view, std::size_t capacity);

  bool has_room() const noexcept { return started_ - completed_ < running_.size(); }
  std::uint64_t started() const noexcept { return started_; }
  std::uint64_t worked() const noexcept { return worked_; }
  std::uint64_t completed() const noexcept { return completed_; }

  /// Announces the next reduction, and returns its number, from 1.
  std::uint64_t start(const Job& job);
  const Job& job(std::uint64_t sequence) const { return running(sequence).job; }
  std::size_t lines(std::uint64_t sequence) const { return running(sequence).lines; }

  /// Whether all ranks of the node have announced the same; StateError where it is not the same.
  bool ready(std::uint64_t sequence);
  /// What the first rank of the node has announced; once ready() was true.
  const Announcement& announcement(std::uint64_t sequence) const noexcept {
    return protocol_.announcement(0, sequence);
  }
  /// The sum of the weights of the node's ranks.
  double weight(std::uint64_t sequence) const noexcept;
  /// What the sources have at an offset. Valid until the next call.
  std::span<const Operand> operands(const Piece& piece, std::uint64_t sequence, std::size_t offset);
  const SumOrder& order() const noexcept { return view_.order; }

  /// Does this rank's share of all that are ready, where the node is the only one.
  void reduce();
  /// This rank has done its share of the next reduction.
  void finish() { protocol_.finish(++worked_); }
  /// Whether all ranks have done their share of all that was started here.
  bool complete() noexcept;

  /// Throws where another rank has failed, or will not come, and not all is complete.
  void check_others();
  /// Throws here, and on the other ranks of the node as soon as they look.
  [[noreturn]] void fail(const ErrorReport& report);
  /// Nothing goes on here any more, and neither on the other ranks of the node.
  void set_failed(const ErrorReport& report);
  bool failed() const noexcept { return failure_.has_value(); }
  /// What this has failed with.
  const ErrorReport& failure() const { return *failure_; }
  /// Throws that.
  [[noreturn]] void raise() const;
  void leave() noexcept { protocol_.leave(); }

  /// The ranks of the node that the next reduction to complete waits for.
  struct Missing {
    Announcement announcement;  ///< of this rank
    std::vector<int> absent;    ///< have not announced it
    std::vector<int> at_work;   ///< have, and have not done their share
  };
  Missing missing() const;

 private:
  struct Running {
    Job job;
    std::size_t lines = 0;
    bool checked = false;
  };

  int rank() const noexcept { return view_.ranks[static_cast<std::size_t>(view_.place)]; }
  int size() const noexcept { return static_cast<int>(view_.ranks.size()); }
  bool is_there(const Job& job) const noexcept;
  void reduce_share(const Job& job, std::uint64_t sequence);
  Running& running(std::uint64_t sequence) { return running_[sequence % running_.size()]; }
  const Running& running(std::uint64_t sequence) const {
    return running_[sequence % running_.size()];
  }

  NodeView view_;
  NodeProtocol protocol_;
  std::vector<Running> running_;
  std::vector<Operand> operands_;
  std::vector<Line> lines_;  // results on their way to a sink
  std::uint64_t started_ = 0, worked_ = 0, completed_ = 0;
  std::optional<ErrorReport> failure_;
};

}  // namespace lockstep::comm
