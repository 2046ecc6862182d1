#include "parallel/replica_buffers.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>

#include "lockstep/core/error.hpp"
#include "parallel/bucket_plan.hpp"
#include "tensor/dispatch.hpp"

namespace lockstep {

ReplicaBuffers::ReplicaBuffers(std::vector<Tensor> buffers, ReplicaBufferPolicy policy,
                               const Communicator& communicator, std::int64_t logical_replicas)
    : buffers_(std::move(buffers)),
      policy_(policy),
      ranks_(communicator.duplicate()),
      parts_{.count = logical_replicas},
      sums_(parts_, communicator.rank(), communicator.size()) {
  std::size_t bytes = 0;
  for (const Tensor& buffer : buffers_) {
    const bool number = is_floating(buffer.dtype());
    const std::size_t size = comm::whole_lines(buffer.bytes());
    offsets_.push_back(bytes);
    if (size > 0) {
      pieces_.push_back({.element = element_of(buffer.dtype()),
                         .op = number ? ReduceOp::sum : ReduceOp::max,
                         .offset = bytes,
                         .bytes = size});
    }
    before_.push_back(buffer.clone());
    bytes += size;
  }
  pieces_.push_back({.element = comm::Element::u8,
                     .op = ReduceOp::max,
                     .offset = bytes,
                     .bytes = comm::line_bytes});
  parts_.slot_bytes = bytes + comm::line_bytes;
  if (policy_ != ReplicaBufferPolicy::average) return;
  reduction_.emplace(ranks_, sums_.slots() * parts_.slot_bytes, 1, parts_);
}

void ReplicaBuffers::begin() {
  if (!std::exchange(begun_, true)) take_before();
}

void ReplicaBuffers::restore() {
  if (std::exchange(begun_, false)) give_before();
}

void ReplicaBuffers::take_before() {
  for (std::size_t i = 0; i < buffers_.size(); ++i) before_[i].copy_from(buffers_[i]);
  parts_done_ = 0;
  parts_changed_ = false;
}

void ReplicaBuffers::give_before() {
  for (std::size_t i = 0; i < buffers_.size(); ++i) buffers_[i].copy_from(before_[i]);
}

bool ReplicaBuffers::changed() const {
  for (std::size_t i = 0; i < buffers_.size(); ++i) {
    if (!bit_equal(buffers_[i], before_[i])) return true;
  }
  return false;
}

// Numbers times a factor, where this rank sums them.
void ReplicaBuffers::write_numbers(double factor) {
  std::byte* const work = reduction_->segment() + sums_.work_slot() * parts_.slot_bytes;
  for (std::size_t i = 0; i < buffers_.size(); ++i) {
    if (!is_floating(buffers_[i].dtype())) continue;
    dispatch_floating(buffers_[i].dtype(), [&]<class T>() {
      const std::span<const T> numbers = std::as_const(buffers_[i]).span<T>();
      // What had no samples may be anything, and counts nothing.
      std::transform(numbers.begin(), numbers.end(), reinterpret_cast<T*>(work + offsets_[i]),
                     [by = static_cast<T>(factor)](T x) { return by == 0 ? 0 : x * by; });
    });
  }
}

// Counts, the largest of this round, in all slots: each is an operand of the maximum over ranks.
void ReplicaBuffers::write_counts(bool first) {
  for (std::size_t i = 0; i < buffers_.size(); ++i) {
    if (is_floating(buffers_[i].dtype())) continue;
    dispatch_all(buffers_[i].dtype(), [&]<class T>() {
      const std::span<const T> counts = std::as_const(buffers_[i]).span<T>();
      for (std::size_t slot = 0; slot < sums_.slots(); ++slot) {
        std::byte* const place = reduction_->segment() + slot * parts_.slot_bytes + offsets_[i];
        std::transform(counts.begin(), counts.end(), reinterpret_cast<T*>(place),
                       reinterpret_cast<T*>(place),
                       [first](T x, T largest) { return first ? x : std::max(x, largest); });
      }
    });
  }
}

void ReplicaBuffers::end_part(double weight) {
  write_numbers(weight);
  write_counts(parts_done_ == 0);
  for (const comm::Piece& piece : pieces_) {
    if (piece.op == ReduceOp::sum) {
      sums_.fold(reduction_->segment(), parts_.slot_bytes, parts_done_, piece);
    }
  }
  parts_changed_ = parts_changed_ || changed();
  give_before();
  ++parts_done_;
}

void ReplicaBuffers::synchronise(double weight) {
  if (policy_ == ReplicaBufferPolicy::average) average(weight);
  if (policy_ == ReplicaBufferPolicy::broadcast) broadcast(weight);
  take_before();
  begun_ = false;
}

void ReplicaBuffers::broadcast(double weight) {
  const auto none = static_cast<std::int64_t>(ranks_.size());
  const std::int64_t root =
      ranks_.all_reduce(weight > 0 ? std::int64_t{ranks_.rank()} : none, ReduceOp::min);
  if (root == none) return;
  for (Tensor& buffer : buffers_) {
    ranks_.broadcast_bytes(buffer.raw(), buffer.bytes(), static_cast<int>(root));
  }
}

void ReplicaBuffers::average(double weight) {
  std::byte* const segment = reduction_->segment();
  const bool in_parts = parts_.count > 0;
  if (!in_parts) {
    write_numbers(1);
    write_counts(true);
  }
  auto* own = reinterpret_cast<std::uint8_t*>(segment + pieces_.back().offset);
  own[Note::changed] = in_parts ? parts_changed_ : changed();
  own[Note::positive_weight] = weight > 0;
  reduction_->start(
      {.pieces = pieces_, .hash = 1, .weight = weight, .weighted = in_parts, .average = true});
  reduction_->wait();
  const auto* all =
      reinterpret_cast<const std::uint8_t*>(reduction_->result() + pieces_.back().offset);
  if (all[Note::changed] != 0 && all[Note::positive_weight] != 0) {
    for (std::size_t i = 0; i < buffers_.size(); ++i) {
      if (buffers_[i].bytes() == 0) continue;
      std::memcpy(buffers_[i].raw(), reduction_->result() + offsets_[i], buffers_[i].bytes());
    }
  }
}

}  // namespace lockstep
