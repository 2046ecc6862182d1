#pragma once

#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "comm/lanes.hpp"
#include "comm/messages.hpp"
#include "comm/node_reduction.hpp"
#include "comm/sum_order.hpp"

namespace lockstep::comm {

/// What the ranks of different nodes send each other for the pieces of a Reduction. The lines of these
/// are cut into lanes, and a lane is exchanged in chunks, several of which are under way at a time.
///
/// The first chunk of a lane, and every one between two nodes, goes from all to all. Of the others
/// each has a node that combines it, and sends the result round.
class NodeExchange {
 public:
  /// At most `capacity` reductions are under way at a time, each of at most `most_lines`. Sums travel
  /// in a format other than `full` only where each node sends one.
  NodeExchange(NodeReduction& node, MPI_Comm communicator, const Lanes& lanes, SumOrder order,
               SumOrder weight_order, std::vector<std::size_t> outputs, WireFormat wire,
               std::byte* result, std::size_t capacity, std::size_t most_lines);
  ~NodeExchange();
  NodeExchange(const NodeExchange&) = delete;
  NodeExchange& operator=(const NodeExchange&) = delete;

  /// Goes on with what the node has started, without waiting.
  void advance();
  /// How many reductions it has nothing left to do for.
  std::uint64_t finished() const noexcept { return finished_; }

  /// StateError where a rank of another node has failed, and all is complete that it has completed.
  void check_others();
  /// Tells the other nodes why this rank does not go on. To be called once, and nothing after it.
  void send_failure(const std::string& message);

 private:
  enum class Way { direct, combines, receives };

  // Of every message, a line.
  struct Header {
    Announcement announcement;
    std::uint64_t chunk = 0;
  };
  static_assert(sizeof(Header) <= line_bytes);

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

  bool is_narrowed(const Piece& piece) const;
  std::size_t travelling_bytes(const Piece& piece, std::size_t bytes) const;
  void add_sums(const Slot& slot, const Piece& piece, std::size_t offset, std::size_t bytes,
                std::byte* payload);
  std::byte* message(Slot& slot, std::size_t node);
  Header header_of(Slot& slot, std::size_t node);
  void add_header(Slot& slot, double weight);
  void take_sums(Slot& slot, std::size_t bytes);
  void spread_result(Slot& slot);
  void take_result(Slot& slot, std::size_t combiner);

  NodeReduction& node_;
  MPI_Comm communicator_;
  Lanes lanes_;
  SumOrder order_;
  SumOrder weight_order_;
  std::vector<std::size_t> outputs_;  // sums that each node sends of a number
  WireFormat wire_;
  SumOrder one_ = SumOrder::chain(1);
  std::size_t longest_chunk_;  // lines
  std::byte* result_;
  std::vector<Slot> slots_;
  std::vector<double> scratch_;  // sums before they are narrowed
  std::vector<Operand> operands_;
  std::vector<std::size_t> positions_;        // in the message of each node
  std::vector<double> weights_;               // of the nodes
  std::vector<void*> blocks_;                 // where the sums of this node go
  std::uint64_t issued_ = 0, concluded_ = 0;  // chunks
  std::uint64_t next_sequence_ = 1;           // of the next chunk to issue
  std::uint64_t finished_ = 0;                // reductions
  std::size_t next_lane_ = 0, next_chunk_ = 0, next_line_ = 0;
  // How many reductions the sender has completed, and why it does not go on.
  std::vector<char> failure_;  // may still be on its way
  std::vector<char> received_failure_;
  std::vector<MPI_Request> failure_sends_;
};

}  // namespace lockstep::comm
