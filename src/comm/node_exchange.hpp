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
/// are cut into lanes, and a lane is exchanged in rounds, several of which are under way at a time.
///
/// Between two nodes, and in a lane of few lines, each sends all to all others. Otherwise the lines of a
/// round are cut into a part for each node, which combines it, and sends the result to the others: all
/// links carry as much at a time, in both directions.
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
  // A round that is under way.
  struct Round {
    Round(MPI_Comm communicator, std::size_t nodes)
        : cuts(nodes + 1), sums(communicator, nodes), results(communicator, nodes) {}

    std::uint64_t sequence = 0;
    std::size_t lane = 0, number = 0;
    LineRange lines{0, 0};
    bool last = false;  // of this rank's in the reduction
    bool direct = false;
    std::vector<std::size_t> cuts;  // where parts of nodes begin
    Messages sums, results;

    /// What a node combines.
    LineRange part(std::size_t node) const {
      return direct ? lines : LineRange{cuts[node], cuts[node + 1]};
    }
    bool has_part(std::size_t node) const { return part(node).begin < part(node).end; }
  };

  Round& round(std::uint64_t number) { return rounds_[number % rounds_.size()]; }
  bool fill(Round& round);
  void cut(Round& round, LineRange lane);
  void issue(Round& round);
  bool combine(Round& round);
  bool finish(Round& round);
  void combine_sums(Round& round);
  void spread_result(Round& round);
  void take_result(const Round& round, const std::byte* message, LineRange part);
  void check_headers(Round& round);
  void check_header(const MessageHeader& first, const MessageHeader& other);

  void send(Messages& messages, const std::byte* message, std::size_t bytes, const Round& round,
            std::size_t node, int phase);
  std::byte* own_sums(Round& round, std::size_t distance);
  std::byte* sums_of(Round& round, std::size_t node);
  void write_header(std::byte* message, const Round& round, double weight) const;
  std::size_t write_sums(Round& round, std::size_t node, std::size_t distance);

  NodeReduction& node_;
  NodeSums& sums_;
  MPI_Comm communicator_;
  Lanes lanes_;
  SumOrder one_ = SumOrder::chain(1);
  std::size_t longest_part_;  // lines
  std::size_t buffer_bytes_;  // of a message
  std::byte* result_;
  std::vector<Round> rounds_;
  NodeSums::OfNodes received_;
  std::uint64_t issued_ = 0, combined_ = 0, concluded_ = 0;  // rounds
  std::uint64_t next_sequence_ = 1;                          // of the next round to issue
  std::uint64_t finished_ = 0;                               // reductions
  std::size_t next_lane_ = 0, next_round_ = 0, next_line_ = 0;
  // A Failure, and the message.
  std::vector<char> failure_;  // may still be on its way
  std::vector<char> received_failure_;
  std::vector<MPI_Request> failure_sends_;
};

}  // namespace lockstep::comm
