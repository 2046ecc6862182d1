#pragma once

#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "comm/node_reduction.hpp"
#include "comm/sum_order.hpp"
#include "lockstep/comm/placement.hpp"

namespace lockstep::comm {

/// What the ranks of different nodes send each other for a Reduction. The lines of a reduction are
/// cut into as many lanes as the largest node has ranks. A lane belongs to one rank of each node,
/// and only these exchange it: in chunks, several of which are under way at a time.
///
/// The first chunk of a lane, and every one between two nodes, goes from all to all. Of the others
/// each has a node that combines it, and sends the result round.
class NodeExchange {
 public:
  /// At most `capacity` reductions are under way at a time, each of at most `most_lines`.
  NodeExchange(NodeReduction& node, MPI_Comm communicator, const Placement& placement,
               SumOrder order, SumOrder weight_order, std::vector<std::size_t> outputs,
               std::byte* result, std::size_t capacity, std::size_t most_lines);
  ~NodeExchange();
  NodeExchange(const NodeExchange&) = delete;
  NodeExchange& operator=(const NodeExchange&) = delete;

  /// Goes on with what the node has started, without waiting.
  void advance();

  /// StateError where a rank of another node has failed, and all is complete that it has completed.
  void check_others();
  /// Tells the other nodes why this rank does not go on. To be called once, and nothing after it.
  void send_failure(const std::string& message);

 private:
  enum class Way { direct, combines, receives };

  struct FreeBytes {
    void operator()(std::byte* bytes) const {
      ::operator delete[](bytes, std::align_val_t{line_bytes});
    }
  };
  using Buffer = std::unique_ptr<std::byte[], FreeBytes>;

  // Of every message, a line.
  struct Header {
    Announcement announcement;
    std::uint64_t chunk = 0;
  };
  static_assert(sizeof(Header) <= line_bytes);

  // A chunk that is under way.
  struct Slot {
    std::uint64_t sequence = 0;
    std::size_t lane = 0, chunk = 0;
    LineRange lines{0, 0};
    bool last = false;  // of this rank's in the reduction
    Way way = Way::direct;
    bool concluded = false;
    std::vector<MPI_Request> requests;
    Buffer outgoing;
    std::vector<Buffer> incoming;  // by node
  };

  Slot& slot(std::uint64_t number) { return slots_[number % slots_.size()]; }
  bool fill(Slot& slot);
  void issue(Slot& slot);
  bool conclude(Slot& slot);
  void combine_nodes(Slot& slot);
  void check_headers(const Slot& slot);
  bool test(Slot& slot);
  void send(Slot& slot, const std::byte* data, std::size_t bytes, std::size_t node, int phase);
  void receive(Slot& slot, std::size_t node, int phase);
  int owner(std::size_t node, std::size_t lane) const;
  int tag(std::size_t lane, int phase) const;

  const std::byte* message(const Slot& slot, std::size_t node) const;
  Header header_of(const Slot& slot, std::size_t node) const;
  std::span<const Operand> next_sums(const Slot& slot, std::size_t bytes);

  NodeReduction& node_;
  MPI_Comm communicator_;
  std::vector<std::vector<int>> nodes_;
  SumOrder order_;
  SumOrder weight_order_;
  std::vector<std::size_t> outputs_;  // sums that each node sends of a number
  std::size_t longest_chunk_;         // lines
  std::byte* result_;
  std::size_t own_node_;
  std::size_t lanes_;
  std::size_t first_lane_, last_lane_;  // this rank's
  std::vector<Slot> slots_;
  std::vector<Operand> operands_;
  std::vector<std::size_t> positions_;        // in the message of each node
  std::vector<double> weights_;               // of the nodes
  std::vector<void*> blocks_;                 // where the sums of this node go
  std::uint64_t issued_ = 0, concluded_ = 0;  // chunks
  std::uint64_t next_sequence_ = 1;           // of the next chunk to issue
  std::size_t next_lane_ = 0, next_chunk_ = 0;
  // How many reductions the sender has completed, and why it does not go on.
  std::vector<char> failure_;  // may still be on its way
  std::vector<char> received_failure_;
  std::vector<MPI_Request> failure_sends_;
};

}  // namespace lockstep::comm
