#pragma once

#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <set>
#include <span>
#include <vector>

#include "comm/messages.hpp"
#include "comm/node_reduction.hpp"
#include "comm/node_sums.hpp"
#include "lockstep/comm/placement.hpp"

namespace lockstep::comm {

/// What the ranks of different nodes send each other for the sinks of a Reduction. Each rank gets the sums that
/// the other nodes have of its share, from one rank of each, and sends these what its sink has made of it.
/// That goes chunk by chunk, several of which are under way at a time; the notes come before the share.
class ShareExchange {
 public:
  ShareExchange(NodeReduction& node, NodeSums& sums, MPI_Comm communicator,
                const Placement& placement, int rank, std::byte* result);

  /// Goes on with what the node has started, without waiting.
  void advance();
  /// How many reductions it has nothing left to do for.
  std::uint64_t finished() const noexcept;
  /// Adds the ranks of other nodes whose messages have not come.
  void add_missing(std::set<int>& ranks) const;

 private:
  // Of a reduction, for all shares.
  struct Chunk {
    Chunk(MPI_Comm communicator, std::size_t nodes) : messages(communicator, nodes) {}

    std::uint64_t sequence = 0;
    std::size_t number = 0;
    bool taken = false;  // this rank's, by the sink
    Messages messages;
  };

  bool begin_next();
  void exchange_sums(Chunk& chunk);
  void take(Chunk& chunk);
  void take_notes(const Job& job, std::span<const std::byte> lines);
  void exchange_values(Chunk& chunk);
  LineRange lines_of(const Chunk& chunk, const Job& job, int rank) const;

  NodeReduction& node_;
  NodeSums& sums_;
  MPI_Comm communicator_;
  std::size_t nodes_, own_node_;
  int rank_;
  bool is_first_;              // on its node
  std::vector<int> partners_;  // of each other node, the rank that sends to this one
  std::vector<int> served_;    // ranks of other nodes that this one sends to
  std::byte* result_;
  std::deque<Chunk> running_;
  std::vector<Chunk> idle_;          // whose memory is used again
  std::uint64_t next_sequence_ = 1;  // of the next chunk
  std::size_t next_chunk_ = 0;
  std::vector<Line> own_sums_, results_;
  std::vector<std::byte> notes_;  // of the reduction whose chunks are taken
  NodeSums::OfNodes received_;
};

}  // namespace lockstep::comm
