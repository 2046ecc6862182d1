#include "comm/node_exchange.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "comm/check.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep::comm {
namespace {

constexpr int failure_tag = 1000;
constexpr int first_tag = 1001;
// Lines of a message. Below the 64 KiB up to which Open MPI hands a message to TCP at once, so that
// the network goes on with it while this process computes.
constexpr std::size_t longest_message = 960;
// Of the first chunk, which all ranks exchange with all others, where there are more than two.
constexpr std::size_t shortest_chunk = 64;

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

std::size_t accumulated(const Piece& piece, std::size_t bytes) {
  return bytes / item_size(piece.element) * accumulator_size(piece.element);
}

// For sums of f16 and bf16, which travel as f32.
constexpr std::size_t buffer_bytes = (1 + 2 * longest_message) * line_bytes;

}  // namespace

NodeExchange::NodeExchange(NodeReduction& node, MPI_Comm communicator, const Placement& placement,
                           SumOrder order, SumOrder weight_order, std::vector<std::size_t> outputs,
                           std::byte* result, std::size_t capacity, std::size_t most_lines)
    : node_(node),
      communicator_(communicator),
      nodes_(placement.nodes),
      order_(std::move(order)),
      weight_order_(std::move(weight_order)),
      outputs_(std::move(outputs)),
      longest_chunk_(longest_message / *std::max_element(outputs_.begin(), outputs_.end())),
      result_(result),
      own_node_(static_cast<std::size_t>(placement.node)),
      lanes_(0) {
  for (const std::vector<int>& ranks : nodes_) lanes_ = std::max(lanes_, ranks.size());
  const auto place = static_cast<std::size_t>(placement.node_rank);
  const std::size_t ranks = nodes_[own_node_].size();
  // The lanes of which owner() is this rank.
  first_lane_ = (place * lanes_ + ranks - 1) / ranks;
  last_lane_ = ((place + 1) * lanes_ + ranks - 1) / ranks;
  next_lane_ = first_lane_;
  blocks_.resize(outputs_[own_node_]);
  // Each slot has buffers, so there are no more than all that can be under way need.
  const std::size_t lane_lines = most_lines / lanes_ + 1;
  const std::size_t chunks =
      2 + lane_lines / chunk_lines(lane_lines, nodes_.size(), longest_chunk_);
  slots_.resize(std::min(slots_for(nodes_.size()), capacity * chunks * (last_lane_ - first_lane_)));
  for (Slot& slot : slots_) {
    slot.requests.reserve(2 * nodes_.size());
    slot.incoming.resize(nodes_.size());
  }
}

NodeExchange::~NodeExchange() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  // Whether some of them are under way, so that MPI may still read or write what they are of.
  const auto abandon = [&](std::vector<MPI_Request>& requests) {
    bool pending = false;
    for (MPI_Request& request : requests) {
      if (request == MPI_REQUEST_NULL || finalized != 0) continue;
      pending = true;
      MPI_Cancel(&request);
      MPI_Request_free(&request);
    }
    return pending;
  };
  for (Slot& slot : slots_) {
    if (!abandon(slot.requests)) continue;
    static_cast<void>(slot.outgoing.release());
    for (Buffer& buffer : slot.incoming) static_cast<void>(buffer.release());
  }
  if (abandon(failure_sends_)) static_cast<void>(new std::vector<char>(std::move(failure_)));
}

int NodeExchange::owner(std::size_t node, std::size_t lane) const {
  return nodes_[node][lane * nodes_[node].size() / lanes_];
}

int NodeExchange::tag(std::size_t lane, int phase) const {
  return first_tag + 2 * static_cast<int>(lane) + phase;
}

void NodeExchange::send(Slot& slot, const std::byte* data, std::size_t bytes, std::size_t node,
                        int phase) {
  check_mpi(MPI_Isend(data, static_cast<int>(bytes), MPI_BYTE, owner(node, slot.lane),
                      tag(slot.lane, phase), communicator_,
                      &slot.requests.emplace_back(MPI_REQUEST_NULL)),
            "MPI_Isend");
}

void NodeExchange::receive(Slot& slot, std::size_t node, int phase) {
  Buffer& buffer = slot.incoming[node];
  if (buffer == nullptr) {
    buffer.reset(new (std::align_val_t{line_bytes}) std::byte[buffer_bytes]);
  }
  check_mpi(MPI_Irecv(buffer.get(), static_cast<int>(buffer_bytes), MPI_BYTE,
                      owner(node, slot.lane), tag(slot.lane, phase), communicator_,
                      &slot.requests.emplace_back(MPI_REQUEST_NULL)),
            "MPI_Irecv");
}

void NodeExchange::advance() {
  while (issued_ - concluded_ < slots_.size() && fill(slot(issued_))) {
    issue(slot(issued_));
    ++issued_;
  }
  while (concluded_ < issued_ && conclude(slot(concluded_))) {
    if (slot(concluded_++).last) node_.finish();
  }
}

// Finds the next chunk of this rank; false where it has to wait for one.
bool NodeExchange::fill(Slot& slot) {
  if (next_sequence_ > node_.started() || !node_.ready(next_sequence_)) return false;
  const std::size_t lines = node_.lines(next_sequence_);
  const auto of_lane = [&](std::size_t lane) { return share_of(lines, lane, lanes_); };
  const auto skip_empty_lanes = [&] {
    while (next_lane_ < last_lane_ && of_lane(next_lane_).begin == of_lane(next_lane_).end) {
      ++next_lane_;
    }
  };
  skip_empty_lanes();
  slot.sequence = next_sequence_;
  slot.lane = next_lane_;
  slot.chunk = next_chunk_;
  slot.concluded = false;
  slot.requests.clear();
  slot.lines = {0, 0};
  if (next_lane_ < last_lane_) {
    const LineRange lane = of_lane(next_lane_);
    const std::size_t first =
        first_chunk_lines(lane.end - lane.begin, nodes_.size(), longest_chunk_);
    const std::size_t longest = chunk_lines(lane.end - lane.begin, nodes_.size(), longest_chunk_);
    slot.lines.begin = lane.begin + (next_chunk_ == 0 ? 0 : first + (next_chunk_ - 1) * longest);
    slot.lines.end = std::min(lane.end, slot.lines.begin + (next_chunk_ == 0 ? first : longest));
    ++next_chunk_;
    if (slot.lines.end == lane.end) {
      next_chunk_ = 0;
      ++next_lane_;
      skip_empty_lanes();
    }
  }
  slot.last = next_lane_ >= last_lane_;
  if (slot.last) {
    ++next_sequence_;
    next_lane_ = first_lane_;
  }
  const std::size_t combiner = slot.chunk % nodes_.size();
  slot.way = slot.chunk == 0 || nodes_.size() == 2 ? Way::direct
             : combiner == own_node_               ? Way::combines
                                                   : Way::receives;
  return true;
}

// Combines the chunk on this node, and sends it on its way.
void NodeExchange::issue(Slot& slot) {
  if (slot.lines.begin == slot.lines.end) return;
  if (slot.outgoing == nullptr) {
    slot.outgoing.reset(new (std::align_val_t{line_bytes}) std::byte[buffer_bytes]);
  }
  const std::size_t combiner = slot.chunk % nodes_.size();
  for (std::size_t node = 0; node < nodes_.size(); ++node) {
    if (node == own_node_ || slot.way == Way::receives) continue;
    receive(slot, node, 0);
  }
  if (slot.way == Way::receives) receive(slot, combiner, 1);

  Announcement announcement = node_.announcement(slot.sequence);
  announcement.weight = node_.weight(slot.sequence);
  const Header header{.announcement = announcement, .chunk = slot.chunk};
  std::memcpy(slot.outgoing.get(), &header, sizeof(header));
  std::byte* payload = slot.outgoing.get() + line_bytes;
  const Job& job = node_.job(slot.sequence);
  for_lines(job.pieces, slot.lines, [&](const Piece& piece, std::size_t offset, std::size_t bytes) {
    for (void*& block : blocks_) {
      block = payload;
      payload += accumulated(piece, bytes);
    }
    combine(piece.element, piece.op, bytes / item_size(piece.element),
            node_.operands(piece, slot.sequence, offset), node_.order(), blocks_.data());
  });
  const auto size = static_cast<std::size_t>(payload - slot.outgoing.get());
  for (std::size_t node = 0; node < nodes_.size(); ++node) {
    const bool to = slot.way == Way::direct || (slot.way == Way::receives && node == combiner);
    if (node != own_node_ && to) send(slot, slot.outgoing.get(), size, node, 0);
  }
}

bool NodeExchange::test(Slot& slot) {
  int done = 0;
  check_mpi(MPI_Testall(static_cast<int>(slot.requests.size()), slot.requests.data(), &done,
                        MPI_STATUSES_IGNORE),
            "MPI_Testall");
  if (done != 0) slot.requests.clear();
  return done != 0;
}

// Whether the chunk is complete; takes the next step to that if it can be taken.
bool NodeExchange::conclude(Slot& slot) {
  if (slot.lines.begin == slot.lines.end) return true;
  if (!test(slot)) return false;
  if (slot.concluded) return true;
  slot.concluded = true;
  check_headers(slot);
  const Job& job = node_.job(slot.sequence);
  if (slot.way == Way::receives) {
    const std::byte* payload = slot.incoming[slot.chunk % nodes_.size()].get() + line_bytes;
    for_lines(job.pieces, slot.lines, [&](const Piece&, std::size_t offset, std::size_t bytes) {
      std::memcpy(result_ + offset, payload, bytes);
      payload += bytes;
    });
    return true;
  }
  combine_nodes(slot);
  if (slot.way == Way::direct) return true;

  std::byte* payload = slot.outgoing.get() + line_bytes;
  for_lines(job.pieces, slot.lines, [&](const Piece&, std::size_t offset, std::size_t bytes) {
    std::memcpy(payload, result_ + offset, bytes);
    payload += bytes;
  });
  const auto size = static_cast<std::size_t>(payload - slot.outgoing.get());
  for (std::size_t node = 0; node < nodes_.size(); ++node) {
    if (node != own_node_) send(slot, slot.outgoing.get(), size, node, 1);
  }
  return test(slot);
}

const std::byte* NodeExchange::message(const Slot& slot, std::size_t node) const {
  return (node == own_node_ ? slot.outgoing : slot.incoming[node]).get();
}

NodeExchange::Header NodeExchange::header_of(const Slot& slot, std::size_t node) const {
  Header header;
  std::memcpy(&header, message(slot, node), sizeof(header));
  return header;
}

// The sums of all nodes that come next in their messages, each of so many bytes.
std::span<const Operand> NodeExchange::next_sums(const Slot& slot, std::size_t bytes) {
  operands_.clear();
  for (std::size_t node = 0; node < nodes_.size(); ++node) {
    for (std::size_t output = 0; output < outputs_[node]; ++output) {
      operands_.push_back({.data = message(slot, node) + positions_[node]});
      positions_[node] += bytes;
    }
  }
  return operands_;
}

void NodeExchange::combine_nodes(Slot& slot) {
  const Job& job = node_.job(slot.sequence);
  double divisor = job.divisor;
  if (job.average) {
    weights_.clear();
    for (std::size_t node = 0; node < nodes_.size(); ++node) {
      weights_.push_back(header_of(slot, node).announcement.weight);
    }
    divisor = weight_order_.sum(weights_);
  }
  positions_.assign(nodes_.size(), line_bytes);
  for_lines(job.pieces, slot.lines, [&](const Piece& piece, std::size_t offset, std::size_t bytes) {
    comm::conclude(piece.element, piece.op, bytes / item_size(piece.element),
                   next_sums(slot, accumulated(piece, bytes)), order_, divisor, result_ + offset);
  });
}

void NodeExchange::check_headers(const Slot& slot) {
  // In the order of nodes, so that all ranks find the same.
  const Header own = header_of(slot, own_node_);
  const Header first = slot.way == Way::receives ? own : header_of(slot, 0);
  for (std::size_t node = 0; node < nodes_.size(); ++node) {
    if (slot.way == Way::receives && node != slot.chunk % nodes_.size()) continue;
    const Header header = header_of(slot, node);
    if (header.announcement.agrees_with(first.announcement) && header.chunk == first.chunk)
      continue;
    node_.fail(describe_difference(first.announcement, header.announcement));
  }
}

// Not among the other messages: one that is long needs both sides, and so may never come from who
// has failed.
void NodeExchange::send_failure(const std::string& message) {
  const std::uint64_t completed = node_.completed();
  failure_.resize(sizeof(completed) + message.size());
  std::memcpy(failure_.data(), &completed, sizeof(completed));
  std::memcpy(failure_.data() + sizeof(completed), message.data(), message.size());
  for (std::size_t lane = first_lane_; lane < last_lane_; ++lane) {
    for (std::size_t node = 0; node < nodes_.size(); ++node) {
      if (node == own_node_) continue;
      check_mpi(
          MPI_Isend(failure_.data(), static_cast<int>(failure_.size()), MPI_BYTE, owner(node, lane),
                    failure_tag, communicator_, &failure_sends_.emplace_back(MPI_REQUEST_NULL)),
          "MPI_Isend");
    }
  }
}

void NodeExchange::check_others() {
  if (!received_failure_.empty()) {
    // What the other has completed, this node can complete as well.
    std::uint64_t completed = 0;
    std::memcpy(&completed, received_failure_.data(), sizeof(completed));
    if (node_.completed() < completed) return;
    node_.fail({received_failure_.begin() + sizeof(completed), received_failure_.end()});
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

}  // namespace lockstep::comm
