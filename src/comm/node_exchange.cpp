#include "comm/node_exchange.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "comm/check.hpp"
#include "comm/measured.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep::comm {
namespace {

constexpr int failure_tag = 1000;

// Two of each lane, from here on. Those of codecs follow.
constexpr int tag(std::size_t lane, int phase) {
  return failure_tag + 1 + 2 * static_cast<int>(lane) + phase;
}

// Of a lane that all exchange with all, and of a part.
constexpr std::size_t few_lines = 64;

// Messages to a rank, or from it, that are under way at a time: enough for what a link carries between
// two looks at it.
constexpr std::size_t most_messages = 32;
constexpr std::size_t least_rounds = 4;

std::size_t rounds_for(std::size_t nodes) {
  return nodes == 2 ? most_messages : std::max(most_messages / nodes, least_rounds);
}

// Rounded up.
constexpr std::size_t divided(std::size_t lines, std::size_t by) { return (lines + by - 1) / by; }

// Lines that a message has the sums of. With many nodes these are fewer, so that what is under way does not
// become more. There are always some, wherever the lines may be cut.
std::size_t longest_part(std::size_t nodes, std::size_t outputs) {
  static_assert(longest_message_lines / SumOrder::max_depth >= block_lines);
  constexpr std::size_t most_lines = longest_message_lines * most_messages / least_rounds;
  return std::max(std::min(most_lines / nodes, longest_message_lines) / outputs, block_lines);
}

}  // namespace

NodeExchange::NodeExchange(NodeReduction& node, NodeSums& sums, MPI_Comm communicator,
                           const Lanes& lanes, std::byte* result, std::size_t capacity,
                           std::size_t most_lines)
    : node_(node),
      sums_(sums),
      communicator_(communicator),
      lanes_(lanes),
      longest_part_(longest_part(lanes.nodes(), sums.most_outputs())),
      // Sums of f16 and bf16 travel as f32.
      buffer_bytes_((1 + 2 * longest_part_ * sums.most_outputs()) * line_bytes),
      result_(result),
      next_lane_(lanes.first()) {
  // Each round has buffers, so there are no more than all that can be under way need.
  const std::size_t nodes = lanes_.nodes();
  const std::size_t lane_lines = most_lines / lanes_.count() + 1;
  const std::size_t of_lane = 2 + lane_lines / (longest_part_ * (nodes == 2 ? 1 : nodes));
  const std::size_t rounds =
      std::min(rounds_for(nodes), capacity * of_lane * (lanes_.last() - lanes_.first()));
  for (std::size_t i = 0; i < rounds; ++i) rounds_.emplace_back(communicator, nodes);
}

NodeExchange::~NodeExchange() {
  if (abandon(failure_sends_)) static_cast<void>(new std::vector<char>(std::move(failure_)));
}

void NodeExchange::advance() {
  while (issued_ - concluded_ < rounds_.size() && fill(round(issued_))) {
    issue(round(issued_));
    ++issued_;
  }
  while (combined_ < issued_ && combine(round(combined_))) ++combined_;
  while (concluded_ < combined_ && finish(round(concluded_))) {
    if (round(concluded_++).last) ++finished_;
  }
}

// Finds the next round of this rank; false where it has to wait for one.
bool NodeExchange::fill(Round& round) {
  if (next_sequence_ > node_.started() || !node_.ready(next_sequence_)) return false;
  const Job& job = node_.job(next_sequence_);
  const std::size_t lines = job.sink == nullptr ? node_.lines(next_sequence_) : 0;
  const auto of_lane = [&](std::size_t lane) {
    return share_of(job.measured, lines, lane, lanes_.count());
  };
  const auto skip_empty_lanes = [&] {
    while (next_lane_ < lanes_.last() && of_lane(next_lane_).begin == of_lane(next_lane_).end) {
      ++next_lane_;
    }
  };
  skip_empty_lanes();
  round.sequence = next_sequence_;
  round.lane = next_lane_;
  round.number = next_round_;
  round.lines = {0, 0};
  round.direct = true;
  if (next_lane_ < lanes_.last()) {
    const LineRange lane = of_lane(next_lane_);
    cut(round, lane);
    next_line_ = round.lines.end;
    ++next_round_;
    if (round.lines.end == lane.end) {
      next_round_ = 0;
      ++next_lane_;
      skip_empty_lanes();
    }
  }
  round.last = next_lane_ >= lanes_.last();
  if (round.last) {
    ++next_sequence_;
    next_lane_ = lanes_.first();
  }
  return true;
}

// Finds the lines of a round, and the parts of the nodes.
void NodeExchange::cut(Round& round, LineRange lane) {
  const std::span<const Measured> measured = node_.job(round.sequence).measured;
  const std::size_t begin = round.number == 0 ? lane.begin : next_line_;
  round.direct = lanes_.nodes() == 2 || lane.end - lane.begin <= few_lines;
  if (round.direct) {
    round.lines = {begin, cut_at(measured, begin + longest_part_, lane.end)};
    return;
  }
  // The rounds that are left are as long as each other. A part ends before the line where it would be
  // longest, by less than a block.
  const std::size_t lines = lane.end - begin;
  const std::size_t parts = lanes_.nodes() * divided(lines, longest_part_ * lanes_.nodes());
  const std::size_t each = divided(lines, parts) + (measured.empty() ? 0 : block_lines - 1);
  round.cuts[0] = begin;
  for (std::size_t node = 0; node < lanes_.nodes(); ++node) {
    const std::size_t longest = std::min(std::max(each, few_lines), longest_part_);
    round.cuts[node + 1] = cut_at(measured, round.cuts[node] + longest, lane.end);
  }
  round.lines = {begin, round.cuts.back()};
}

// Sends the sums of this node on their way.
void NodeExchange::issue(Round& round) {
  if (round.lines.begin == round.lines.end) return;
  for (std::size_t distance = 1; distance < lanes_.nodes(); ++distance) {
    const std::size_t node = lanes_.node_after(distance);
    const int owner = lanes_.owner(node, round.lane);
    if (round.has_part(lanes_.own_node())) {
      round.sums.receive(round.sums.incoming(node, buffer_bytes_), buffer_bytes_, owner,
                         tag(round.lane, 0));
    }
    if (!round.direct && round.has_part(node)) {
      round.results.receive(round.results.incoming(node, buffer_bytes_), buffer_bytes_, owner,
                            tag(round.lane, 1));
    }
  }
  const std::size_t own_bytes = write_sums(round, lanes_.own_node(), 0);
  for (std::size_t distance = 1; distance < lanes_.nodes(); ++distance) {
    const std::size_t node = lanes_.node_after(distance);
    if (!round.has_part(node)) continue;
    const std::size_t bytes = round.direct ? own_bytes : write_sums(round, node, distance);
    send(round.sums, own_sums(round, round.direct ? 0 : distance), bytes, round, node, 0);
  }
}

// Combines the part of this node once all have sent theirs.
bool NodeExchange::combine(Round& round) {
  if (!round.has_part(lanes_.own_node())) return true;
  if (!round.sums.test()) return false;
  check_headers(round);
  combine_sums(round);
  if (!round.direct) spread_result(round);
  return true;
}

// Whether all parts are complete.
bool NodeExchange::finish(Round& round) {
  if (!round.sums.test() || !round.results.test()) return false;
  for (std::size_t distance = 1; distance < lanes_.nodes() && !round.direct; ++distance) {
    const std::size_t node = lanes_.node_after(distance);
    if (!round.has_part(node)) continue;
    const std::byte* const message = round.results.incoming(node, buffer_bytes_);
    check_header(MessageHeader::of(own_sums(round, 0)), MessageHeader::of(message));
    take_result(round, message, round.part(node));
  }
  return true;
}

void NodeExchange::send(Messages& messages, const std::byte* message, std::size_t bytes,
                        const Round& round, std::size_t node, int phase) {
  messages.send(message, bytes, lanes_.owner(node, round.lane), tag(round.lane, phase));
}

// What this node has of the part of the one at that distance; in a direct round there is but one.
std::byte* NodeExchange::own_sums(Round& round, std::size_t distance) {
  const std::size_t messages = round.direct ? 1 : lanes_.nodes();
  return round.sums.outgoing(messages * buffer_bytes_) + distance * buffer_bytes_;
}

std::byte* NodeExchange::sums_of(Round& round, std::size_t node) {
  return node == lanes_.own_node() ? own_sums(round, 0) : round.sums.incoming(node, buffer_bytes_);
}

void NodeExchange::write_header(std::byte* message, const Round& round, double weight) const {
  MessageHeader header{.announcement = node_.announcement(round.sequence), .part = round.number};
  header.announcement.weight = weight;
  header.write_to(message);
}

// Returns the bytes of the message.
std::size_t NodeExchange::write_sums(Round& round, std::size_t node, std::size_t distance) {
  std::byte* const message = own_sums(round, distance);
  write_header(message, round, node_.weight(round.sequence));
  std::byte* end = message + line_bytes;
  for_lines(node_.job(round.sequence).pieces, round.part(node),
            [&](const Piece& piece, std::size_t offset, std::size_t bytes) {
              end = sums_.write(lanes_.own_node(), round.sequence, piece, offset, bytes, end);
            });
  return static_cast<std::size_t>(end - message);
}

void NodeExchange::combine_sums(Round& round) {
  const Job& job = node_.job(round.sequence);
  received_.payloads.clear();
  received_.weights.clear();
  for (std::size_t node = 0; node < lanes_.nodes(); ++node) {
    const std::byte* const message = sums_of(round, node);
    received_.payloads.push_back(message + line_bytes);
    received_.weights.push_back(MessageHeader::of(message).announcement.weight);
  }
  for_lines(job.pieces, round.part(lanes_.own_node()),
            [&](const Piece& piece, std::size_t offset, std::size_t bytes) {
              sums_.conclude(job, piece, bytes, received_, result_ + offset);
            });
  measure(job.measured, round.part(lanes_.own_node()), result_);
}

// Tells the other nodes the result of a part. What is narrow is a mean again, and the header says what
// to multiply it with; this node takes it as the others do.
void NodeExchange::spread_result(Round& round) {
  const Job& job = node_.job(round.sequence);
  const LineRange part = round.part(lanes_.own_node());
  const double total = job.average ? 1 : sums_.total_weight(received_) / job.divisor;
  std::byte* const message = round.results.outgoing(buffer_bytes_);
  write_header(message, round, total);
  std::byte* payload = message + line_bytes;
  for_lines(job.pieces, part, [&](const Piece& piece, std::size_t offset, std::size_t bytes) {
    if (sums_.is_narrowed(piece)) {
      to_wire(sums_.wire(), piece.element, bytes / item_size(piece.element), result_ + offset,
              total > 0 ? 1 / total : 0, payload);
      payload += sums_.travelling_bytes(piece, bytes);
    } else {
      std::memcpy(payload, result_ + offset, bytes);
      payload += bytes;
    }
  });
  const auto bytes = static_cast<std::size_t>(payload - message);
  for (std::size_t distance = 1; distance < lanes_.nodes(); ++distance) {
    send(round.results, message, bytes, round, lanes_.node_after(distance), 1);
  }
  if (sums_.wire() != WireFormat::full) take_result(round, message, part);
}

void NodeExchange::take_result(const Round& round, const std::byte* message, LineRange part) {
  const Job& job = node_.job(round.sequence);
  const double total = MessageHeader::of(message).announcement.weight;
  const std::byte* payload = message + line_bytes;
  for_lines(job.pieces, part, [&](const Piece& piece, std::size_t offset, std::size_t bytes) {
    if (sums_.is_narrowed(piece)) {
      const Operand numbers{.data = payload, .weight = total};
      conclude_wire(sums_.wire(), piece.element, bytes / item_size(piece.element),
                    std::span(&numbers, 1), one_, 1, result_ + offset);
      payload += sums_.travelling_bytes(piece, bytes);
    } else {
      std::memcpy(result_ + offset, payload, bytes);
      payload += bytes;
    }
  });
  measure(job.measured, part, result_);
}

// In the order of nodes, so that all ranks find the same.
void NodeExchange::check_headers(Round& round) {
  const MessageHeader first = MessageHeader::of(sums_of(round, 0));
  for (std::size_t node = 1; node < lanes_.nodes(); ++node) {
    check_header(first, MessageHeader::of(sums_of(round, node)));
  }
}

void NodeExchange::check_header(const MessageHeader& first, const MessageHeader& other) {
  if (other.agrees_with(first)) return;
  node_.fail({ErrorKind::state, describe_difference(first.announcement, other.announcement)});
}

namespace {

// What a rank that does not go on tells the others, before the message.
struct Failure {
  std::uint64_t completed;  // reductions, of the sender
  ErrorKind kind;
};

}  // namespace

// Not among the other messages: one that is long needs both sides, and so may never come from who
// has failed.
void NodeExchange::send_failure(const ErrorReport& report) {
  const Failure failure{node_.completed(), report.kind};
  failure_.resize(sizeof(failure) + report.message.size());
  std::memcpy(failure_.data(), &failure, sizeof(failure));
  std::memcpy(failure_.data() + sizeof(failure), report.message.data(), report.message.size());
  for (std::size_t lane = lanes_.first(); lane < lanes_.last(); ++lane) {
    for (std::size_t node = 0; node < lanes_.nodes(); ++node) {
      if (node == lanes_.own_node()) continue;
      check_mpi(MPI_Isend(failure_.data(), static_cast<int>(failure_.size()), MPI_BYTE,
                          lanes_.owner(node, lane), failure_tag, communicator_,
                          &failure_sends_.emplace_back(MPI_REQUEST_NULL)),
                "MPI_Isend");
    }
  }
}

void NodeExchange::check_others() {
  if (!received_failure_.empty()) {
    // What the other has completed, this node can complete as well.
    Failure failure;
    std::memcpy(&failure, received_failure_.data(), sizeof(failure));
    if (node_.completed() < failure.completed) return;
    node_.fail(
        {failure.kind, {received_failure_.begin() + sizeof(failure), received_failure_.end()}});
  }
  int found = 0;
  MPI_Status status;
  check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, failure_tag, communicator_, &found, &status), "MPI_Iprobe");
  if (found == 0) return;
  int size = 0;
  check_mpi(MPI_Get_count(&status, MPI_BYTE, &size), "MPI_Get_count");
  received_failure_.resize(static_cast<std::size_t>(size));
  check_mpi(MPI_Recv(received_failure_.data(), size, MPI_BYTE, status.MPI_SOURCE, failure_tag,
                     communicator_, MPI_STATUS_IGNORE),
            "MPI_Recv");
}

// Of the first round that waits for any; results come after sums, and so are missing where these are.
void NodeExchange::add_missing(std::set<int>& ranks) const {
  std::set<int> missing;
  for (std::uint64_t number = concluded_; number < issued_ && missing.empty(); ++number) {
    const Round& round = rounds_[number % rounds_.size()];
    round.sums.add_missing(missing);
    if (missing.empty()) round.results.add_missing(missing);
  }
  ranks.merge(missing);
}

}  // namespace lockstep::comm
