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

// Lines of the first chunk, which all ranks exchange with all others, where there are more than two.
constexpr std::size_t shortest_chunk = 64;
// So that a chunk has lines, wherever it may be cut.
static_assert(shortest_chunk >= block_lines &&
              longest_message_lines / SumOrder::max_depth >= block_lines);

// Messages that are under way at a time: enough for what a link carries between two looks at it.
constexpr std::size_t slots_for(std::size_t nodes) {
  return std::clamp<std::size_t>(32 / (nodes - 1), 4, 32);
}

// Lines of the chunks after the first.
std::size_t chunk_lines(std::size_t lines, std::size_t nodes, std::size_t longest) {
  if (nodes == 2) return longest;
  return std::clamp((lines + nodes - 1) / nodes, std::min(shortest_chunk, longest), longest);
}

std::size_t first_chunk_lines(std::size_t lines, std::size_t nodes, std::size_t longest) {
  return std::min({lines, longest, nodes == 2 ? longest : shortest_chunk});
}

// For sums of f16 and bf16, which travel as f32.
constexpr std::size_t buffer_bytes = (1 + 2 * longest_message_lines) * line_bytes;

}  // namespace

NodeExchange::NodeExchange(NodeReduction& node, NodeSums& sums, MPI_Comm communicator,
                           const Lanes& lanes, std::byte* result, std::size_t capacity,
                           std::size_t most_lines)
    : node_(node),
      sums_(sums),
      communicator_(communicator),
      lanes_(lanes),
      longest_chunk_(longest_message_lines / sums.most_outputs()),
      result_(result),
      next_lane_(lanes.first()) {
  // Each slot has buffers, so there are no more than all that can be under way need.
  const std::size_t nodes = lanes_.nodes();
  const std::size_t lane_lines = most_lines / lanes_.count() + 1;
  const std::size_t chunks = 2 + lane_lines / chunk_lines(lane_lines, nodes, longest_chunk_);
  const std::size_t slots =
      std::min(slots_for(nodes), capacity * chunks * (lanes_.last() - lanes_.first()));
  for (std::size_t i = 0; i < slots; ++i) slots_.emplace_back(communicator, nodes);
}

NodeExchange::~NodeExchange() {
  if (abandon(failure_sends_)) static_cast<void>(new std::vector<char>(std::move(failure_)));
}

void NodeExchange::send(Slot& slot, std::size_t bytes, std::size_t node, int phase) {
  slot.messages.send(slot.messages.outgoing(bytes), bytes, lanes_.owner(node, slot.lane),
                     tag(slot.lane, phase));
}

void NodeExchange::receive(Slot& slot, std::size_t node, int phase) {
  slot.messages.receive(slot.messages.incoming(node, buffer_bytes), buffer_bytes,
                        lanes_.owner(node, slot.lane), tag(slot.lane, phase));
}

void NodeExchange::advance() {
  while (issued_ - concluded_ < slots_.size() && fill(slot(issued_))) {
    issue(slot(issued_));
    ++issued_;
  }
  while (concluded_ < issued_ && conclude(slot(concluded_))) {
    if (slot(concluded_++).last) ++finished_;
  }
}

// Finds the next chunk of this rank; false where it has to wait for one.
bool NodeExchange::fill(Slot& slot) {
  if (next_sequence_ > node_.started() || !node_.ready(next_sequence_)) return false;
  const Job& job = node_.job(next_sequence_);
  const std::size_t lines = job.sink == nullptr ? node_.lines(next_sequence_) : 0;
  const std::span<const Measured> measured = job.measured;
  const auto of_lane = [&](std::size_t lane) {
    return share_of(measured, lines, lane, lanes_.count());
  };
  const auto skip_empty_lanes = [&] {
    while (next_lane_ < lanes_.last() && of_lane(next_lane_).begin == of_lane(next_lane_).end) {
      ++next_lane_;
    }
  };
  skip_empty_lanes();
  slot.sequence = next_sequence_;
  slot.lane = next_lane_;
  slot.chunk = next_chunk_;
  slot.concluded = false;
  slot.lines = {0, 0};
  if (next_lane_ < lanes_.last()) {
    const LineRange lane = of_lane(next_lane_);
    const std::size_t first =
        first_chunk_lines(lane.end - lane.begin, lanes_.nodes(), longest_chunk_);
    const std::size_t longest = chunk_lines(lane.end - lane.begin, lanes_.nodes(), longest_chunk_);
    slot.lines.begin = next_chunk_ == 0 ? lane.begin : next_line_;
    slot.lines.end =
        cut_at(measured, slot.lines.begin + (next_chunk_ == 0 ? first : longest), lane.end);
    next_line_ = slot.lines.end;
    ++next_chunk_;
    if (slot.lines.end == lane.end) {
      next_chunk_ = 0;
      ++next_lane_;
      skip_empty_lanes();
    }
  }
  slot.last = next_lane_ >= lanes_.last();
  if (slot.last) {
    ++next_sequence_;
    next_lane_ = lanes_.first();
  }
  const std::size_t combiner = slot.chunk % lanes_.nodes();
  slot.way = slot.chunk == 0 || lanes_.nodes() == 2 ? Way::direct
             : combiner == lanes_.own_node()        ? Way::combines
                                                    : Way::receives;
  return true;
}

// Combines the chunk on this node, and sends it on its way.
void NodeExchange::issue(Slot& slot) {
  if (slot.lines.begin == slot.lines.end) return;
  const std::size_t combiner = slot.chunk % lanes_.nodes();
  for (std::size_t node = 0; node < lanes_.nodes(); ++node) {
    if (node == lanes_.own_node() || slot.way == Way::receives) continue;
    receive(slot, node, 0);
  }
  if (slot.way == Way::receives) receive(slot, combiner, 1);

  add_header(slot, node_.weight(slot.sequence));
  std::byte* const message = slot.messages.outgoing(buffer_bytes);
  std::byte* end = message + line_bytes;
  for_lines(node_.job(slot.sequence).pieces, slot.lines,
            [&](const Piece& piece, std::size_t offset, std::size_t bytes) {
              end = sums_.write(lanes_.own_node(), slot.sequence, piece, offset, bytes, end);
            });
  const auto size = static_cast<std::size_t>(end - message);
  for (std::size_t node = 0; node < lanes_.nodes(); ++node) {
    const bool to = slot.way == Way::direct || (slot.way == Way::receives && node == combiner);
    if (node != lanes_.own_node() && to) send(slot, size, node, 0);
  }
}

// Whether the chunk is complete; takes the next step to that if it can be taken.
bool NodeExchange::conclude(Slot& slot) {
  if (slot.lines.begin == slot.lines.end) return true;
  if (!slot.messages.test()) return false;
  if (slot.concluded) return true;
  slot.concluded = true;
  check_headers(slot);
  if (slot.way == Way::receives) {
    take_result(slot, slot.chunk % lanes_.nodes());
    return true;
  }
  combine_nodes(slot);
  if (slot.way == Way::direct) return true;
  spread_result(slot);
  return slot.messages.test();
}

std::byte* NodeExchange::message(Slot& slot, std::size_t node) {
  return node == lanes_.own_node() ? slot.messages.outgoing(buffer_bytes)
                                   : slot.messages.incoming(node, buffer_bytes);
}

void NodeExchange::add_header(Slot& slot, double weight) {
  MessageHeader header{.announcement = node_.announcement(slot.sequence), .part = slot.chunk};
  header.announcement.weight = weight;
  header.write_to(message(slot, lanes_.own_node()));
}

void NodeExchange::combine_nodes(Slot& slot) {
  const Job& job = node_.job(slot.sequence);
  received_.payloads.clear();
  received_.weights.clear();
  for (std::size_t node = 0; node < lanes_.nodes(); ++node) {
    received_.payloads.push_back(message(slot, node) + line_bytes);
    received_.weights.push_back(header_of(slot, node).announcement.weight);
  }
  for_lines(job.pieces, slot.lines, [&](const Piece& piece, std::size_t offset, std::size_t bytes) {
    sums_.conclude(job, piece, bytes, received_, result_ + offset);
  });
  measure(job.measured, slot.lines, result_);
}

// Tells the other nodes the result of a chunk. What is narrow is a mean again, and the header says what
// to multiply it with; this node takes it as the others do.
void NodeExchange::spread_result(Slot& slot) {
  const Job& job = node_.job(slot.sequence);
  const double total = job.average ? 1 : sums_.total_weight(received_) / job.divisor;
  add_header(slot, total);
  std::byte* payload = message(slot, lanes_.own_node()) + line_bytes;
  for_lines(job.pieces, slot.lines, [&](const Piece& piece, std::size_t offset, std::size_t bytes) {
    if (sums_.is_narrowed(piece)) {
      to_wire(sums_.wire(), piece.element, bytes / item_size(piece.element), result_ + offset,
              total > 0 ? 1 / total : 0, payload);
      payload += sums_.travelling_bytes(piece, bytes);
    } else {
      std::memcpy(payload, result_ + offset, bytes);
      payload += bytes;
    }
  });
  const auto size = static_cast<std::size_t>(payload - message(slot, lanes_.own_node()));
  for (std::size_t node = 0; node < lanes_.nodes(); ++node) {
    if (node != lanes_.own_node()) send(slot, size, node, 1);
  }
  if (sums_.wire() != WireFormat::full) take_result(slot, lanes_.own_node());
}

void NodeExchange::take_result(Slot& slot, std::size_t combiner) {
  const Job& job = node_.job(slot.sequence);
  const double total = header_of(slot, combiner).announcement.weight;
  const std::byte* payload = message(slot, combiner) + line_bytes;
  for_lines(job.pieces, slot.lines, [&](const Piece& piece, std::size_t offset, std::size_t bytes) {
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
  measure(job.measured, slot.lines, result_);
}

void NodeExchange::check_headers(Slot& slot) {
  // In the order of nodes, so that all ranks find the same.
  const MessageHeader own = header_of(slot, lanes_.own_node());
  const MessageHeader first = slot.way == Way::receives ? own : header_of(slot, 0);
  for (std::size_t node = 0; node < lanes_.nodes(); ++node) {
    if (slot.way == Way::receives && node != slot.chunk % lanes_.nodes()) continue;
    const MessageHeader header = header_of(slot, node);
    if (header.agrees_with(first)) continue;
    node_.fail({ErrorKind::state, describe_difference(first.announcement, header.announcement)});
  }
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

void NodeExchange::add_missing(std::set<int>& ranks) const {
  for (std::uint64_t number = concluded_; number < issued_; ++number) {
    slots_[number % slots_.size()].messages.add_missing(ranks);
  }
}

}  // namespace lockstep::comm
