#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "autograd/state.hpp"
#include "comm/calls.hpp"
#include "comm/check.hpp"
#include "lockstep/core/error.hpp"
#include "parallel/reducer_engine.hpp"

namespace lockstep {

// Notes are not of a part.
void GradientReducer::Engine::fold(const Bucket& bucket) {
  for (const comm::Piece& piece : bucket.all.pieces) {
    if (piece.element != comm::Element::u8) fold(piece);
  }
}

void GradientReducer::Engine::fold(const comm::Piece& range) {
  sums_->fold(reduction_->segment(), parts_.slot_bytes, parts_done_, range);
}

comm::Piece GradientReducer::Engine::range_of(std::size_t index) const {
  const GradientRange& range = ranges_[index];
  return {.element = range.dtype == DType::f32 ? comm::Element::f32 : comm::Element::f64,
          .op = ReduceOp::sum,
          .offset = range.offset,
          .bytes = range.bytes};
}

void GradientReducer::Engine::begin_part(double weight) {
  if (std::exchange(in_part_, true)) end_part();
  part_weight_ = weight;
}

void GradientReducer::Engine::end_part() {
  for (std::size_t i = 0; i < items_.size(); ++i) {
    State& state = states_[i];
    if (std::exchange(state.opened, false)) continue;
    state.missed = state.missed || (part_weight_ > 0 && flags(i).requires_grad);
    if (parts_.count == 0 || (!state.planned && !flags(i).requires_grad)) continue;
    if (!state.used) stash(i);
    zero(i);
  }
  if (parts_.count > 0) {
    for (const Bucket& bucket : buckets_) fold(bucket);
    for (const std::uint32_t index : left_out_) {
      if (flags(index).requires_grad) fold(range_of(index));
    }
  }
  ++parts_done_;
}

// Others wait for what this rank cannot do.
void GradientReducer::Engine::check_thread() {
  if (may_call_mpi()) return;
  const std::string message = describe_no_mpi("gradients are reduced", communicator_.rank());
  reduction_->set_failed(message);
  if (comm::Calls* calls = comm::Calls::of(callers_)) calls->set_failed(message);
  throw StateError(message);
}

void GradientReducer::Engine::zero(std::size_t index) {
  std::memset(work_slot() + ranges_[index].offset, 0, ranges_[index].bytes);
}

// From here to release(), this rank has to do with the gradient in the round.
void GradientReducer::Engine::hold(std::size_t index) {
  if (std::exchange(flags(index).unreduced, true)) return;
  ++table()->unreduced;
}

void GradientReducer::Engine::release(std::size_t index) noexcept {
  if (std::exchange(flags(index).unreduced, false)) --table()->unreduced;
}

// With a ring.
Tensor& GradientReducer::Engine::find_storage(std::size_t index) {
  const Parameter& parameter = items_[index].parameter;
  Tensor& gradient = autograd::VariableState::of(parameter)->gradient;
  if (!gradient.defined()) {
    gradient = Tensor::empty(parameter.value().shape(), parameter.value().dtype());
  }
  return gradient;
}

void GradientReducer::Engine::drop_storage(std::size_t index) noexcept {
  flags(index).has_gradient = flags(index).reduced = false;
  autograd::VariableState::of(items_[index].parameter)->gradient = {};
}

// Behind its numbers a gradient's memory may hold anything, such as what traps in sums: zeros stand for it.
void GradientReducer::Engine::read(std::size_t index, std::size_t begin, std::size_t bytes,
                                   std::byte* to) {
  const Tensor& gradient = find_storage(index);
  const std::size_t held = std::min(bytes, gradient.bytes() - std::min(gradient.bytes(), begin));
  std::memcpy(to, static_cast<const std::byte*>(gradient.raw()) + begin, held);
  std::memset(to + held, 0, bytes - held);
}

// Moves what this rank has of a bucket to its place.
void GradientReducer::Engine::fill_slot(const Bucket& bucket) {
  for (const GradientPlace& place : bucket.places) {
    const std::uint32_t index = bucket.items[place.item];
    std::byte* const slot = reduction_->segment() + place.offset;
    if (states_[index].used) {
      read(index, place.begin, place.bytes, slot);
    } else {
      std::memset(slot, 0, place.bytes);
    }
  }
  if (bucket.slice + 1 < bucket.slices) return;
  for (const std::uint32_t index : bucket.items) drop_storage(index);
}

// Puts the gradient of before aside, once in a round.
void GradientReducer::Engine::stash(std::size_t index) {
  if (stepper_ != nullptr || states_[index].stashed || !flags(index).has_gradient) return;
  Item& item = items_[index];
  if (!item.earlier.defined()) {
    item.earlier = Tensor::empty(item.local.shape(), item.local.dtype());
  }
  item.earlier.copy_from(item.parameter.grad());
  states_[index].stashed = true;
}

// Makes the gradient what it was before the round.
void GradientReducer::Engine::restore(std::size_t index) noexcept {
  Item& item = items_[index];
  State& state = states_[index];
  release(index);
  if (!state.used && !state.stashed) return;
  flags(index).has_gradient = state.stashed;
  flags(index).reduced = false;
  if (ring_) drop_storage(index);
  if (state.stashed) std::memcpy(item.local.raw(), item.earlier.raw(), item.local.bytes());
  state.used = state.stashed = false;
}

void GradientReducer::Engine::restore_all() noexcept {
  for (std::size_t i = 0; i < items_.size(); ++i) restore(i);
}

// Gradients that come with the number of their samples are not mixed with others.
void GradientReducer::Engine::check_in_batch() const {
  if (in_batch_) return;
  if (parts_.count > 0) {
    throw StateError(
        "with logical replicas, gradients are computed by DataParallel::backward(batch, loss)");
  }
  if (weighted_) {
    throw StateError(
        "DataParallel::backward(batch, loss) has left gradients under no_sync(), and counts "
        "samples: finish() comes first");
  }
}

void GradientReducer::Engine::undo_round() {
  restore_all();
  end_round();
  if (round_hooks_.undo) round_hooks_.undo();
}

bool GradientReducer::Engine::open(std::size_t index) {
  if (table()->unreduced == 0) check_thread();
  check_in_batch();
  check_steps();
  State& state = states_[index];
  if (state.complete) {
    throw StateError("a backward reaches a parameter that was marked ready: finish() comes first");
  }
  const bool adds = state.used;
  if (!adds) stash(index);
  hold(index);
  state.used = true;
  flags(index).reduced = false;
  if (ring_) find_storage(index);
  const bool opened = std::exchange(state.opened, true);
  if (!opened) state.reached_weight += part_weight_;
  return adds && (opened || parts_.count == 0);
}

void GradientReducer::Engine::complete(std::size_t index) {
  note_order(index);
  if (!deferred()) add_complete(index);
}

void GradientReducer::Engine::mark_ready(const Parameter& parameter) {
  if (!parameter.defined() || parameter.gradient_owner() != this) {
    throw NameError("mark_ready: the parameter is not one of this reducer's");
  }
  check_thread();
  check_in_batch();
  const std::size_t index = autograd::VariableState::of(parameter)->parameter->index;
  State& state = states_[index];
  if (state.complete) {
    throw StateError(fmt::format("mark_ready: '{}' was marked ready before", items_[index].name));
  }
  check_steps();
  if (ring_ && !flags(index).has_gradient) {
    throw StateError(
        fmt::format("mark_ready: '{}' has no gradient, and none is kept from the reduction before: "
                    "write one where mutable_grad() is",
                    items_[index].name));
  }
  hold(index);
  state.used = state.opened = state.replaces = true;
  flags(index).has_gradient = true;
  flags(index).reduced = false;
  note_order(index);
  add_complete(index);
}

void GradientReducer::Engine::note_order(std::size_t index) {
  if (planned_ || std::exchange(states_[index].ordered, true)) return;
  order_.push_back(static_cast<std::uint32_t>(index));
}

void GradientReducer::Engine::discard() {
  if (launched_ > 0) {
    throw StateError("the reduction of what would be discarded is under way: finish() comes first");
  }
  deferred_failure_ = nullptr;
  undo_round();
}

std::shared_ptr<const void> GradientReducer::Engine::defer() {
  std::shared_ptr<const void> deferral = deferral_.lock();
  if (deferral == nullptr) {
    deferral = std::make_shared<char>();
    deferral_ = deferral;
  }
  return deferral;
}

void GradientReducer::Engine::set_weight(double weight) {
  if (launched_ > 0) {
    throw StateError("the weight of a reduction that is under way: set it before mark_ready()");
  }
  if (weighted_) {
    throw StateError(
        "DataParallel::backward(batch, loss) has left gradients under no_sync(), whose weight is "
        "their number of samples: finish() comes first");
  }
  weight_ = weight;
}

void GradientReducer::Engine::add_weighted(double weight) {
  weight_ = std::exchange(weighted_, true) ? weight_ + weight : weight;
}

void GradientReducer::Engine::fail_deferred(const std::exception_ptr& failure) noexcept {
  restore_all();
  deferred_failure_ = failure;
}

void GradientReducer::Engine::abandon() noexcept {
  if (deferred() && launched_ == 0) return fail_deferred(std::current_exception());
  try {
    cancel(std::current_exception());
  } catch (...) {
    cancellation_ = std::current_exception();
  }
}

}  // namespace lockstep
