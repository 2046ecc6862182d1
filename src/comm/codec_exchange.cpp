#include "comm/codec_exchange.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

namespace lockstep::comm {
namespace {

constexpr std::size_t longest_part = longest_message_lines * line_bytes;
constexpr int most_rounds = 16;
constexpr int first_tag = 10'000;

int round_tag(std::size_t lane, std::size_t round) {
  return first_tag + static_cast<int>(lane) * most_rounds + static_cast<int>(round) % most_rounds;
}

// Calls use(offset, bytes) for each part of a message.
template <class Use>
void for_parts(std::size_t bytes, Use&& use) {
  for (std::size_t offset = 0; offset < bytes; offset += longest_part) {
    use(offset, std::min(longest_part, bytes - offset));
  }
}

// Calls use(codec, offset, bytes) for each codec that has a message in a round; returns where they end.
template <class Use>
std::size_t for_messages(std::span<Codec* const> codecs, std::size_t round, Use&& use) {
  std::size_t offset = line_bytes;
  for (Codec* codec : codecs) {
    const std::span<const std::size_t> bytes = codec->message_bytes();
    if (round >= bytes.size()) continue;
    use(*codec, offset, bytes[round]);
    offset += whole_lines(bytes[round]);
  }
  return offset;
}

std::size_t round_bytes(std::span<Codec* const> codecs, std::size_t round) {
  return for_messages(codecs, round, [](Codec&, std::size_t, std::size_t) {});
}

}  // namespace

CodecExchange::CodecExchange(NodeReduction& node, MPI_Comm communicator, const Lanes& lanes,
                             SumOrder weight_order, std::byte* result)
    : node_(node),
      communicator_(communicator),
      lanes_(lanes),
      weight_order_(std::move(weight_order)),
      result_(result) {}

std::uint64_t CodecExchange::finished() const noexcept {
  return running_.empty() ? begun_ : running_.front().sequence - 1;
}

void CodecExchange::advance() {
  while (begun_ < node_.started() && node_.ready(begun_ + 1)) begin_next();
  // No group is further than one before it, so that messages of a round are in order.
  std::size_t furthest = std::numeric_limits<std::size_t>::max();
  for (Group& group : running_) {
    while (group.round < std::min(group.rounds, furthest) && group.messages.test()) {
      read_round(group);
      if (++group.round < group.rounds) send_round(group);
    }
    if (group.round < group.rounds) furthest = std::min(furthest, group.round);
  }
  while (!running_.empty() && running_.front().round == running_.front().rounds &&
         running_.front().messages.test()) {
    idle_.push_back(std::move(running_.front()));
    running_.pop_front();
  }
}

CodecExchange::Group& CodecExchange::add_group() {
  if (idle_.empty()) return running_.emplace_back(communicator_, lanes_.nodes());
  running_.push_back(std::move(idle_.back()));
  idle_.pop_back();
  return running_.back();
}

void CodecExchange::begin_next() {
  const std::uint64_t sequence = ++begun_;
  const std::span<Codec* const> codecs = node_.job(sequence).codecs;
  for (std::size_t lane = lanes_.first(); lane < lanes_.last(); ++lane) {
    const auto is_here = [lane](const Codec* codec) { return codec->lane() == lane; };
    if (std::none_of(codecs.begin(), codecs.end(), is_here)) continue;
    Group& group = add_group();
    group.sequence = sequence;
    group.lane = lane;
    group.round = group.rounds = 0;
    group.codecs.clear();
    std::copy_if(codecs.begin(), codecs.end(), std::back_inserter(group.codecs), is_here);
    for (const Codec* codec : group.codecs) {
      group.rounds = std::max(group.rounds, codec->message_bytes().size());
    }
    combine_node(group);
    send_round(group);
  }
}

void CodecExchange::combine_node(const Group& group) {
  for (Codec* codec : group.codecs) {
    const Piece& piece = codec->piece();
    void* sums = codec->sums();
    combine(piece.element, piece.op, piece.bytes / item_size(piece.element),
            node_.operands(piece, group.sequence, piece.offset), node_.order(), &sums);
  }
}

void CodecExchange::send_round(Group& group) {
  const double weight = node_.weight(group.sequence);
  const std::size_t size = round_bytes(group.codecs, group.round);
  std::byte* const outgoing = group.messages.outgoing(size);
  std::memset(outgoing, 0, size);
  MessageHeader header{.announcement = node_.announcement(group.sequence), .part = group.round};
  header.announcement.weight = weight;
  header.write_to(outgoing);
  if (weight > 0) {
    for_messages(group.codecs, group.round,
                 [&](Codec& codec, std::size_t offset, std::size_t bytes) {
                   codec.encode(group.round, weight, {outgoing + offset, bytes});
                 });
  }
  for (std::size_t distance = 1; distance < lanes_.nodes(); ++distance) {
    const std::size_t node = lanes_.node_after(distance);
    std::byte* const incoming = group.messages.incoming(node, size);
    const int rank = lanes_.owner(node, group.lane),
              tag_of_round = round_tag(group.lane, group.round);
    for_parts(size, [&](std::size_t offset, std::size_t bytes) {
      group.messages.receive(incoming + offset, bytes, rank, tag_of_round);
      group.messages.send(outgoing + offset, bytes, rank, tag_of_round);
    });
  }
}

std::byte* CodecExchange::message(Group& group, std::size_t node, std::size_t size) {
  return node == lanes_.own_node() ? group.messages.outgoing(size)
                                   : group.messages.incoming(node, size);
}

// Returns the sum of all weights.
double CodecExchange::read_headers(Group& group, std::size_t size) {
  weights_.clear();
  const MessageHeader first = MessageHeader::of(message(group, 0, size));
  for (std::size_t node = 0; node < lanes_.nodes(); ++node) {
    const MessageHeader header = MessageHeader::of(message(group, node, size));
    if (!header.agrees_with(first)) {
      node_.fail({ErrorKind::state, describe_difference(first.announcement, header.announcement)});
    }
    weights_.push_back(header.announcement.weight);
  }
  return weight_order_.sum(weights_);
}

void CodecExchange::read_round(Group& group) {
  const std::size_t size = round_bytes(group.codecs, group.round);
  const double total = read_headers(group, size);
  const Job& job = node_.job(group.sequence);
  const double scale = job.average ? 1 : total / job.divisor;
  for_messages(group.codecs, group.round, [&](Codec& codec, std::size_t offset, std::size_t bytes) {
    received_.clear();
    for (std::size_t node = 0; node < lanes_.nodes(); ++node) {
      if (!(weights_[node] > 0)) continue;
      received_.push_back(
          {.bytes = {message(group, node, size) + offset, bytes}, .share = weights_[node] / total});
    }
    const Piece& piece = codec.piece();
    codec.decode(group.round, received_, scale, result_ + piece.offset);
    if (group.round + 1 == codec.message_bytes().size()) {
      measure(std::span(&codec.measured(), 1), {0, piece.bytes / line_bytes}, result_);
    }
  });
}

void CodecExchange::add_missing(std::set<int>& ranks) const {
  for (const auto& running : running_) running.messages.add_missing(ranks);
}

}  // namespace lockstep::comm
