#pragma once

#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <set>
#include <vector>

#include "comm/lanes.hpp"
#include "comm/messages.hpp"
#include "comm/node_reduction.hpp"
#include "comm/node_sums.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep::comm {

/// What the ranks of different nodes send each other for the pieces of a Reduction. The lines of these
/// are cut into lanes, and a lane is exchanged in chunks, several of which are under way at a time.
///
/// The first chunk of a lane, and every one between two nodes, goes from all to all. Of the others
/// each has a node that combines it, and sends the result round.
class NodeExchange {
 public:
  /// At most `capacity` reductions are under way at a time, each of at most `most_lines`.
  NodeExchange(NodeReduction& node, NodeSums& sums, MPI_Comm communicator, const Lanes& lanes,
               std::byte* result, std::size_t capacity, std::size_t most_lines);
  ~NodeExchange();
  NodeExchange(const NodeExchange&) = delete;
  NodeExchange& operator=(const NodeExchange&) = delete;

  /// Goes on with what the node has started, without waiting.
  void advance();
  /// How many reductions it has nothing left to do for.
  std::uint64_t finished() const noexcept { return finished_; }

  /// Throws where a rank of another node has failed, and all is complete that it has completed.
  void check_others();
  /// Tells the other nodes why this rank does not go on. To be called once, and nothing after it.
  void send_failure(const ErrorReport& report);
  /// Adds the ranks of other nodes whose messages have not come.
  void add_missing(std::set<int>& ranks) const;

 private:
  enum class Way { direct, combines, receives };

  // A chunk that is under way.
  struct Slot {
    Slot(MPI_Comm communicator, std::size_t nodes) : messages(communicator, nodes) {}

    std::uint64_t sequence = 0;
    std::size_t lane = 0, chunk = 0;
    LineRange lines{0, 0};
    bool last = false;  // of this rank's in the reduction
    Way way = Way::direct;
    bool concluded = false;
    Messages messages;
  };

  Slot& slot(std::uint64_t number) { return slots_[number % slots_.size()]; }
  bool fill(Slot& slot);
  void issue(Slot& slot);
  bool conclude(Slot& slot);
  void combine_nodes(Slot& slot);
  void check_headers(Slot& slot);
  void send(Slot& slot, std::size_t bytes, std::size_t node, int phase);
  void receive(Slot& slot, std::size_t node, int phase);

  std::byte* message(Slot& slot, std::size_t node);
  MessageHeader header_of(Slot& slot, std::size_t node) {
    return MessageHeader::of(message(slot, node));
  }
  void add_header(Slot& slot, double weight);
  void spread_result(Slot& slot);
  void take_result(Slot& slot, std::size_t combiner);

  NodeReduction& node_;
  NodeSums& sums_;
  MPI_Comm communicator_;
  Lanes lanes_;
  SumOrder one_ = SumOrder::chain(1);
  std::size_t longest_chunk_;  // lines
  std::byte* result_;
  std::vector<Slot> slots_;
  NodeSums::OfNodes received_;
  std::uint64_t issued_ = 0, concluded_ = 0;  // chunks
  std::uint64_t next_sequence_ = 1;           // of the next chunk to issue
  std::uint64_t finished_ = 0;                // reductions
  std::size_t next_lane_ = 0, next_chunk_ = 0, next_line_ = 0;
  // A Failure, and the message.
  std::vector<char> failure_;  // may still be on its way
  std::vector<char> received_failure_;
  std::vector<MPI_Request> failure_sends_;
};

}  // namespace lockstep::comm
