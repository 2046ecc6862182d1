#include "comm/share_exchange.hpp"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

namespace lockstep::comm {
namespace {

constexpr int sums_tag = 900, values_tag = 901;
constexpr std::size_t note_lines = longest_message_lines - 1;
constexpr std::size_t note_bytes = (1 + note_lines) * line_bytes;

// Chunks that are under way at a time: each has a message of every other node.
constexpr std::size_t most_running(std::size_t nodes) {
  return std::clamp<std::size_t>(32 / (nodes - 1), 2, 16);
}

std::size_t lines_of_notes(const Job& job) { return job.pieces.back().bytes / line_bytes; }

// Calls use(piece, offset, bytes) for what is in lines that count those of notes first, and then those of a share.
template <class Use>
void for_share_lines(const Job& job, LineRange share, LineRange lines, const Use& use) {
  const std::size_t all = job.lines(), notes = lines_of_notes(job);
  if (lines.begin < notes) {
    for_lines(job.pieces, {all - notes + lines.begin, all - notes + std::min(lines.end, notes)},
              use);
  }
  if (lines.end > notes) {
    for_lines(job.pieces,
              {share.begin + std::max(lines.begin, notes) - notes, share.begin + lines.end - notes},
              use);
  }
}

}  // namespace

ShareExchange::ShareExchange(NodeReduction& node, NodeSums& sums, MPI_Comm communicator,
                             const Placement& placement, int rank, std::byte* result)
    : node_(node),
      sums_(sums),
      communicator_(communicator),
      nodes_(placement.nodes.size()),
      own_node_(static_cast<std::size_t>(placement.node)),
      rank_(rank),
      is_first_(placement.node_rank == 0),
      result_(result) {
  const auto own_place = static_cast<std::size_t>(placement.node_rank);
  const std::size_t neighbours = placement.neighbours().size();
  for (const std::vector<int>& ranks : placement.nodes) {
    partners_.push_back(ranks[own_place % ranks.size()]);
  }
  // The next node first, so that not all send to the same.
  for (std::size_t distance = 1; distance < nodes_; ++distance) {
    const std::vector<int>& ranks = placement.nodes[(own_node_ + distance) % nodes_];
    for (std::size_t place = own_place; place < ranks.size(); place += neighbours) {
      served_.push_back(ranks[place]);
    }
  }
}

std::uint64_t ShareExchange::finished() const noexcept {
  return running_.empty() ? next_sequence_ - 1 : running_.front().sequence - 1;
}

void ShareExchange::advance() {
  while (running_.size() < most_running(nodes_) && begin_next()) {
  }
  for (Chunk& chunk : running_) {
    if (chunk.taken) continue;
    if (!chunk.messages.test()) break;
    take(chunk);
    exchange_values(chunk);
  }
  while (!running_.empty() && running_.front().taken && running_.front().messages.test()) {
    running_.front().messages.keep(nullptr);
    idle_.push_back(std::move(running_.front()));
    running_.pop_front();
  }
}

// The lines of a rank's share in a chunk, with those of notes before them.
LineRange ShareExchange::lines_of(const Chunk& chunk, const Job& job, int rank) const {
  const LineRange share = job.shares[static_cast<std::size_t>(rank)];
  const std::size_t all = lines_of_notes(job) + share.end - share.begin;
  const std::size_t begin = std::min(all, chunk.number * note_lines);
  return {begin, std::min(all, begin + note_lines)};
}

// Begins a chunk where there is one; all ranks have chunks in the same order.
bool ShareExchange::begin_next() {
  while (next_sequence_ <= node_.started() && node_.job(next_sequence_).sink == nullptr) {
    ++next_sequence_;
  }
  if (next_sequence_ > node_.started() || !node_.ready(next_sequence_)) return false;
  if (idle_.empty()) {
    running_.emplace_back(communicator_, nodes_);
  } else {
    running_.push_back(std::move(idle_.back()));
    idle_.pop_back();
  }
  Chunk& chunk = running_.back();
  chunk.sequence = next_sequence_;
  chunk.number = next_chunk_++;
  chunk.taken = false;
  const Job& job = node_.job(next_sequence_);
  std::size_t most = 0;
  for (const LineRange& share : job.shares) most = std::max(most, share.end - share.begin);
  if (next_chunk_ * note_lines >= lines_of_notes(job) + most) {
    ++next_sequence_;
    next_chunk_ = 0;
  }
  exchange_sums(chunk);
  return true;
}

void ShareExchange::exchange_sums(Chunk& chunk) {
  const Job& job = node_.job(chunk.sequence);
  const auto is_empty = [](LineRange lines) { return lines.begin == lines.end; };
  if (!is_empty(lines_of(chunk, job, rank_))) {
    for (std::size_t node = 0; node < nodes_; ++node) {
      if (node == own_node_) continue;
      chunk.messages.receive(chunk.messages.incoming(node, note_bytes), note_bytes, partners_[node],
                             sums_tag);
    }
  }
  MessageHeader header{.announcement = node_.announcement(chunk.sequence), .part = chunk.number};
  header.announcement.weight = node_.weight(chunk.sequence);
  std::byte* message = chunk.messages.outgoing(served_.size() * note_bytes);
  for (const int rank : served_) {
    const LineRange lines = lines_of(chunk, job, rank);
    if (is_empty(lines)) continue;
    header.write_to(message);
    std::byte* end = message + line_bytes;
    for_share_lines(job, job.shares[static_cast<std::size_t>(rank)], lines,
                    [&](const Piece& piece, std::size_t offset, std::size_t bytes) {
                      end = sums_.write(own_node_, chunk.sequence, piece, offset, bytes, end);
                    });
    chunk.messages.send(message, static_cast<std::size_t>(end - message), rank, sums_tag);
    message += note_bytes;
  }
}

// Combines what has come for this rank.
void ShareExchange::take(Chunk& chunk) {
  chunk.taken = true;
  const Job& job = node_.job(chunk.sequence);
  const LineRange lines = lines_of(chunk, job, rank_);
  if (lines.begin == lines.end) return;
  const LineRange share = job.shares[static_cast<std::size_t>(rank_)];
  own_sums_.resize(note_lines);
  results_.resize(note_lines);
  std::byte* const own_sums = own_sums_.front().bytes;
  std::byte* end = own_sums;
  for_share_lines(job, share, lines,
                  [&](const Piece& piece, std::size_t offset, std::size_t bytes) {
                    end = sums_.write(own_node_, chunk.sequence, piece, offset, bytes, end);
                  });
  received_.payloads.clear();
  received_.weights.clear();
  const Announcement& own = node_.announcement(chunk.sequence);
  for (std::size_t node = 0; node < nodes_; ++node) {
    if (node == own_node_) {
      received_.payloads.push_back(own_sums);
      received_.weights.push_back(node_.weight(chunk.sequence));
      continue;
    }
    const std::byte* const message = chunk.messages.incoming(node, note_bytes);
    const MessageHeader header = MessageHeader::of(message);
    if (!header.agrees_with({own, chunk.number})) {
      node_.fail({ErrorKind::state, node < own_node_
                                        ? describe_difference(header.announcement, own)
                                        : describe_difference(own, header.announcement)});
    }
    received_.payloads.push_back(message + line_bytes);
    received_.weights.push_back(header.announcement.weight);
  }
  for_share_lines(job, share, lines,
                  [&](const Piece& piece, std::size_t offset, std::size_t bytes) {
                    sums_.conclude(job, piece, bytes, received_, results_.data());
                    const auto results = std::as_bytes(std::span(results_)).first(bytes);
                    if (&piece == &job.pieces.back()) {
                      take_notes(job, results);
                    } else {
                      job.sink->take(offset, results);
                    }
                  });
}

void ShareExchange::take_notes(const Job& job, std::span<const std::byte> lines) {
  const Piece& piece = job.pieces.back();
  notes_.insert(notes_.end(), lines.begin(), lines.end());
  if (notes_.size() < piece.bytes) return;
  if (is_first_) std::memcpy(result_ + piece.offset, notes_.data(), piece.bytes);
  job.sink->begin(notes_);
  notes_.clear();
}

// Of the lines that all ranks have taken.
void ShareExchange::exchange_values(Chunk& chunk) {
  const Job& job = node_.job(chunk.sequence);
  const std::size_t notes = lines_of_notes(job);
  const auto values = [&](int rank) {
    const LineRange lines = lines_of(chunk, job, rank);
    const std::size_t begin = std::max(lines.begin, notes) - notes;
    const std::size_t end = std::max(lines.end, notes) - notes;
    return job.sink->values(rank).subspan(begin * line_bytes, (end - begin) * line_bytes);
  };
  chunk.messages.keep(job.sink->memory());
  for (const int rank : served_) {
    const std::span<std::byte> theirs = values(rank);
    if (!theirs.empty()) {
      chunk.messages.receive(theirs.data(), theirs.size(), rank, values_tag);
    }
  }
  const std::span<const std::byte> own = values(rank_);
  for (std::size_t distance = 1; distance < nodes_ && !own.empty(); ++distance) {
    chunk.messages.send(own.data(), own.size(), partners_[(own_node_ + distance) % nodes_],
                        values_tag);
  }
}

void ShareExchange::add_missing(std::set<int>& ranks) const {
  for (const auto& running : running_) running.messages.add_missing(ranks);
}

}  // namespace lockstep::comm
