#include "parallel/reducer_engine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "autograd/state.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/core/timeline.hpp"
#include "tensor/dispatch.hpp"
#include "tensor/kernels.hpp"

namespace lockstep {
namespace {

// Sums may be made in f32.
bool is_weight(double weight) {
  const auto single = static_cast<float>(weight);
  return weight == 0 || (weight > 0 && std::isnormal(single));
}

}  // namespace

// Adds what the part that is under way has in a range to the sums of the parts before, as far as
// they are the halves of a larger one.
void GradientReducer::Engine::fold(const comm::Piece& range) {
  const std::vector<comm::Subtree>& sums = sums_[parts_done_];
  comm::Subtree sum{.begin = parts().begin + static_cast<std::int64_t>(parts_done_), .size = 1};
  const std::byte* right = slot(work_slot_) + range.offset;
  std::size_t left = sums.size();
  for (; left > 0 && sums[left - 1].is_left_of(sum); --left) {
    std::byte* target = slot(left - 1) + range.offset;
    dispatch_floating(
        range.element == comm::Element::f32 ? DType::f32 : DType::f64, [&]<class T>() {
          kernels::add_scaled(static_cast<std::int64_t>(range.bytes / sizeof(T)), T{1},
                              reinterpret_cast<const T*>(right), reinterpret_cast<T*>(target));
        });
    sum = {.begin = sums[left - 1].begin, .size = 2 * sum.size};
    right = target;
  }
  if (left == sums.size()) std::memcpy(slot(left) + range.offset, right, range.bytes);
}

// The last piece are notes, which are not of a part.
void GradientReducer::Engine::fold(const Bucket& bucket) {
  if (work_slot_ == 0) return;
  for (std::size_t p = 0; p + 1 < bucket.pieces.size(); ++p) fold(bucket.pieces[p]);
}

void GradientReducer::Engine::end_part() {
  for (std::size_t i = 0; i < items_.size(); ++i) {
    if (!std::exchange(states_[i].opened, false)) zero(i);
  }
  for (const Bucket& bucket : buckets_) fold(bucket);
  ++parts_done_;
}

// Puts the gradient of before aside.
void GradientReducer::Engine::stash(std::size_t index) {
  if (!flags(index).has_gradient) return;
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
  if (!state.used && !state.stashed) return;
  const bool zeroed = state.used && !flags(index).has_gradient;
  flags(index).has_gradient = state.stashed && !zeroed;
  flags(index).reduced = false;
  if (state.stashed) std::memcpy(item.local.raw(), item.earlier.raw(), item.local.bytes());
  state.used = state.stashed = false;
}

bool GradientReducer::Engine::open(std::size_t index) {
  if (parts_.count > 0 && !in_parts_) {
    throw StateError(
        "with logical replicas, gradients are computed by DataParallel::backward(batch, loss)");
  }
  State& state = states_[index];
  if (state.complete) {
    throw StateError("a backward reaches a parameter that was marked ready: finish() comes first");
  }
  const bool adds = state.used && flags(index).has_gradient;
  if (!adds) {
    state.stashed = false;  // zero_grad() has forgotten that too
    stash(index);
  }
  state.used = true;
  flags(index).reduced = false;
  const bool opened = std::exchange(state.opened, true);
  return adds && (opened || parts_.count == 0);
}

void GradientReducer::Engine::complete(std::size_t index) {
  note_order(index);
  if (!deferred_) add_complete(index);
}

void GradientReducer::Engine::mark_ready(const Parameter& parameter) {
  if (!parameter.defined() || parameter.gradient_owner() != this) {
    throw NameError("mark_ready: the parameter is not one of this reducer's");
  }
  const std::size_t index = autograd::VariableState::of(parameter)->parameter->index;
  State& state = states_[index];
  if (state.complete) throw StateError("mark_ready: the parameter was marked ready before");
  state.used = state.opened = true;
  flags(index).has_gradient = true;
  flags(index).reduced = false;
  note_order(index);
  add_complete(index);
}

void GradientReducer::Engine::note_order(std::size_t index) {
  if (planned_ || std::exchange(states_[index].ordered, true)) return;
  order_.push_back(static_cast<std::uint32_t>(index));
}

// The last bucket waits for the end of the round, so that a rank can always tell the others that
// something has gone wrong.
void GradientReducer::Engine::add_complete(std::size_t index) {
  states_[index].complete = true;
  --missing_[bucket_of_[index]];
  while (launched_ + 1 < buckets_.size() && missing_[launched_] == 0) launch_next(false);
  reduction_->poll();
  record_complete();
}

void GradientReducer::Engine::launch_next(bool abandoned) {
  const Bucket& bucket = buckets_[launched_];
  const bool valid = is_weight(weight_);
  auto* own = reinterpret_cast<std::uint8_t*>(reduction_->segment() + bucket.notes);
  own[Note::abandoned] = abandoned;
  own[Note::invalid_weight] = !valid;
  own[Note::positive_weight] = valid && weight_ > 0;
  for (std::size_t k = 0; k < bucket.items.size(); ++k) {
    const std::size_t index = bucket.items[k];
    State& state = states_[index];
    if (state.used && !flags(index).has_gradient)
      state.used = state.stashed = false;  // zero_grad()
    if (!state.used) stash(index);
    if (!state.used || (parts_.count > 0 && !state.opened)) zero(index);
    own[Note::first_item + k] = state.used;
  }
  fold(bucket);
  reduction_->start({.pieces = bucket.pieces,
                     .number = static_cast<std::uint32_t>(launched_),
                     .hash = hash_,
                     .weight = valid ? weight_ : 0,
                     .weighted = parts_.count > 0,
                     .average = true});
  launch_times_[launched_] = timeline::enabled() ? timeline::now() : -1;
  ++launched_;
}

void GradientReducer::Engine::record_complete() {
  const std::uint64_t completed = reduction_->completed() - completed_before_;
  for (; recorded_ < completed; ++recorded_) {
    if (!timeline::enabled() || launch_times_[recorded_] < 0) continue;
    timeline::record_overlapping(fmt::format("bucket {}", recorded_), launch_times_[recorded_],
                                 timeline::now());
  }
}

void GradientReducer::Engine::zero(std::size_t index) {
  std::memset(slot(work_slot_) + ranges_[index].offset, 0, ranges_[index].bytes);
}

// The maximum over ranks of what they have noted.
const std::uint8_t* GradientReducer::Engine::notes(const Bucket& bucket) const noexcept {
  return reinterpret_cast<const std::uint8_t*>(reduction_->result() + bucket.notes);
}

void GradientReducer::Engine::finish_round(const std::exception_ptr& failure) {
  try {
    while (launched_ < buckets_.size()) launch_next(failure != nullptr);
    const timeline::Span span("wait");
    while (recorded_ < buckets_.size()) {
      reduction_->wait(completed_before_ + recorded_ + 1);
      record_complete();
    }
  } catch (...) {
    reduction_->set_failed(describe_current_exception().message);
    restore_all();
    end_round();
    throw;
  }
  check_round(failure);
  const bool hooks = table()->final_hooks > 0;
  for (const Bucket& bucket : buckets_) {
    settle(bucket);
    if (!hooks) continue;
    const std::uint8_t* used = notes(bucket) + Note::first_item;
    for (const std::uint32_t item : bucket.items) reached_[item] = *used++;
  }
  if (!planned_) agree_on_plan();
  end_round();
  if (!hooks) return;
  for (std::size_t i = 0; i < items_.size(); ++i) {
    if (reached_[i] != 0) items_[i].parameter.run_final_hooks();
  }
}

bool GradientReducer::Engine::anything_used() const noexcept {
  return std::any_of(buckets_.begin(), buckets_.end(), [this](const Bucket& bucket) {
    const std::uint8_t* used = notes(bucket) + Note::first_item;
    return std::any_of(used, used + bucket.items.size(), [](std::uint8_t u) { return u != 0; });
  });
}

// Throws on all ranks where one of them has spoilt the round. What was contributed stays for the
// next one where only the weights were wrong.
void GradientReducer::Engine::check_round(const std::exception_ptr& failure) {
  // All buckets tell the same, except that it is the last that is abandoned for sure.
  const std::uint8_t* noted = notes(buckets_.back());
  const bool abandoned = noted[Note::abandoned] != 0, invalid = noted[Note::invalid_weight] != 0;
  const bool weightless = noted[Note::positive_weight] == 0 && anything_used();
  if (!abandoned && !invalid && !weightless) return;
  for (std::size_t i = 0; i < items_.size(); ++i) {
    if (abandoned || !states_[i].used) restore(i);
  }
  end_round();
  communicator_.agree([&] {
    if (failure != nullptr) std::rethrow_exception(failure);
    if (!is_weight(weight_)) {
      throw OptionError(
          fmt::format("expected a weight that is finite and not negative, found {}", weight_));
    }
  });
  OptionError error("the weights of all ranks are zero: there is nothing to average");
  error.set_collective(true);
  throw error;
}

// The gradient of an item that some rank used is now what was there before plus the mean; that of
// one that none used is as it was.
void GradientReducer::Engine::settle(const Bucket& bucket) {
  const std::uint8_t* used = notes(bucket) + Note::first_item;
  for (const std::uint32_t index : bucket.items) {
    if (*used++ == 0) {
      restore(index);
      continue;
    }
    State& state = states_[index];
    flags(index).has_gradient = true;
    flags(index).reduced = true;
    state.used = false;
    if (!std::exchange(state.stashed, false)) continue;
    Item& item = items_[index];
    Tensor& gradient = item.parameter.mutable_grad();
    dispatch_floating(gradient.dtype(), [&]<class T>() {
      kernels::add_scaled(gradient.size(), T{1}, std::as_const(item.earlier).data<T>(),
                          gradient.data<T>());
    });
  }
}

void GradientReducer::Engine::end_round() noexcept {
  launched_ = 0;
  ++rounds_;
  for (std::size_t b = 0; b < buckets_.size(); ++b) {
    missing_[b] = static_cast<std::uint32_t>(buckets_[b].items.size());
  }
  recorded_ = 0;
  completed_before_ = reduction_->completed();
  parts_done_ = 0;
  for (State& state : states_) state.complete = state.opened = false;
}

void GradientReducer::Engine::restore_all() noexcept {
  for (std::size_t i = 0; i < items_.size(); ++i) restore(i);
}

void GradientReducer::Engine::discard() {
  if (launched_ > 0) {
    throw StateError("the reduction of what would be discarded is under way: finish() comes first");
  }
  restore_all();
  end_round();
}

void GradientReducer::Engine::set_weight(double weight) {
  if (launched_ > 0) {
    throw StateError("the weight of a reduction that is under way: set it before mark_ready()");
  }
  weight_ = weight;
}

void GradientReducer::Engine::abandon() noexcept {
  if (deferred_ && launched_ == 0) return restore_all();
  try {
    cancel(std::current_exception());
  } catch (...) {
    cancellation_ = std::current_exception();
  }
}

}  // namespace lockstep
