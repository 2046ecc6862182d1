#include "comm/node_protocol.hpp"

#include <algorithm>
#include <cstring>

namespace lockstep::comm {

std::size_t NodeProtocol::bytes(int ranks, std::size_t capacity) noexcept {
  return sizeof(Failure) +
         static_cast<std::size_t>(ranks) * (sizeof(Progress) + capacity * sizeof(Announced));
}

NodeProtocol::NodeProtocol(std::byte* memory, int rank, int ranks, std::size_t capacity) noexcept
    : rank_(rank),
      ranks_(ranks),
      capacity_(capacity),
      // Zeros are valid objects of these types, which every rank finds there.
      failure_(reinterpret_cast<Failure*>(memory)),
      progress_(reinterpret_cast<Progress*>(memory + sizeof(Failure))),
      announced_(reinterpret_cast<Announced*>(
          memory + sizeof(Failure) + static_cast<std::size_t>(ranks) * sizeof(Progress))) {}

void NodeProtocol::announce(const Announcement& announcement) noexcept {
  Announced& own = announced(rank_, announcement.sequence);
  own.announcement = announcement;
  own.sequence.store(announcement.sequence, std::memory_order_release);
}

bool NodeProtocol::all_announced(std::uint64_t sequence) noexcept {
  // Exchanges between nodes and reductions on this one may ask for calls in turns.
  if (sequence != announced_sequence_) announced_by_ = 0;
  announced_sequence_ = sequence;
  for (; announced_by_ < ranks_; ++announced_by_) {
    const auto& other = announced(announced_by_, sequence);
    if (other.sequence.load(std::memory_order_acquire) < sequence) return false;
  }
  announced_by_ = 0;
  return true;
}

const Announcement& NodeProtocol::announcement(int rank, std::uint64_t sequence) const noexcept {
  return announced(rank, sequence).announcement;
}

void NodeProtocol::finish(std::uint64_t sequence) noexcept {
  progress_[rank_].finished.store(sequence, std::memory_order_release);
}

bool NodeProtocol::all_finished(std::uint64_t sequence) noexcept {
  for (; finished_by_ < ranks_; ++finished_by_) {
    if (progress_[finished_by_].finished.load(std::memory_order_acquire) < sequence) return false;
  }
  finished_by_ = 0;
  return true;
}

void NodeProtocol::fail(const ErrorReport& report) noexcept {
  std::uint32_t untouched = 0;
  if (!failure_->state.compare_exchange_strong(untouched, 1, std::memory_order_acq_rel)) return;
  failure_->kind = report.kind;
  const std::size_t size = std::min(report.message.size(), sizeof(failure_->message) - 1);
  std::memcpy(failure_->message, report.message.data(), size);
  failure_->message[size] = '\0';
  failure_->state.store(2, std::memory_order_release);
}

std::optional<ErrorReport> NodeProtocol::failure() const {
  if (failure_->state.load(std::memory_order_acquire) != 2) return std::nullopt;
  return ErrorReport{failure_->kind, failure_->message};
}

void NodeProtocol::leave() noexcept { progress_[rank_].left.store(1, std::memory_order_release); }

int NodeProtocol::who_left_before(std::uint64_t sequence) const noexcept {
  for (int rank = 0; rank < ranks_; ++rank) {
    const Progress& progress = progress_[rank];
    if (progress.left.load(std::memory_order_acquire) != 0 &&
        progress.finished.load(std::memory_order_acquire) < sequence) {
      return rank;
    }
  }
  return -1;
}

std::vector<int> NodeProtocol::not_announced(std::uint64_t sequence) const {
  std::vector<int> ranks;
  for (int rank = 0; rank < ranks_; ++rank) {
    if (announced(rank, sequence).sequence.load(std::memory_order_acquire) < sequence) {
      ranks.push_back(rank);
    }
  }
  return ranks;
}

std::vector<int> NodeProtocol::not_finished(std::uint64_t sequence) const {
  std::vector<int> ranks;
  for (int rank = 0; rank < ranks_; ++rank) {
    if (progress_[rank].finished.load(std::memory_order_acquire) < sequence) ranks.push_back(rank);
  }
  return ranks;
}

}  // namespace lockstep::comm
