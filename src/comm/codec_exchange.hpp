#pragma once

#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <set>
#include <span>
#include <vector>

#include "comm/codec.hpp"
#include "comm/lanes.hpp"
#include "comm/messages.hpp"
#include "comm/node_reduction.hpp"
#include "comm/sum_order.hpp"

namespace lockstep::comm {

/// What the ranks of different nodes send each other for the codecs of a Reduction: from all to all,
/// those of one lane together in one message a round.
class CodecExchange {
 public:
  CodecExchange(NodeReduction& node, MPI_Comm communicator, const Lanes& lanes,
                SumOrder weight_order, std::byte* result);

  /// Goes on with what the node has started, without waiting.
  void advance();
  /// How many reductions it has nothing left to do for.
  std::uint64_t finished() const noexcept;
  /// Adds the ranks of other nodes whose messages have not come.
  void add_missing(std::set<int>& ranks) const;

 private:
  // The codecs of one lane in a reduction.
  struct Group {
    Group(MPI_Comm communicator, std::size_t nodes) : messages(communicator, nodes) {}

    std::uint64_t sequence = 0;
    std::size_t lane = 0;
    std::vector<Codec*> codecs;
    std::size_t round = 0, rounds = 0;
    Messages messages;
  };

  void begin_next();
  Group& add_group();
  void combine_node(const Group& group);
  void send_round(Group& group);
  void read_round(Group& group);
  double read_headers(Group& group, std::size_t size);
  std::byte* message(Group& group, std::size_t node, std::size_t size);

  NodeReduction& node_;
  MPI_Comm communicator_;
  Lanes lanes_;
  SumOrder weight_order_;
  std::byte* result_;
  std::deque<Group> running_;
  std::vector<Group> idle_;      // whose memory is used again
  std::uint64_t begun_ = 0;      // reductions
  std::vector<double> weights_;  // of the nodes
  std::vector<NodeMessage> received_;
};

}  // namespace lockstep::comm
