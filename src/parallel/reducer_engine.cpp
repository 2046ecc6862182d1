#include "parallel/reducer_engine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "comm/calls.hpp"
#include "comm/place.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/core/timeline.hpp"
#include "tensor/dispatch.hpp"
#include "tensor/kernels.hpp"

namespace lockstep {

// The last block waits for the end of the round, so that a rank can always tell the others that
// something has gone wrong.
bool GradientReducer::Engine::can_launch() const noexcept {
  if (launched_ >= last_block_) return false;
  const Bucket& bucket = buckets_[launched_];
  return missing_[launched_ - bucket.slice] == 0 && has_slot();
}

void GradientReducer::Engine::add_complete(std::size_t index) {
  State& state = states_[index];
  state.complete = true;
  if (state.planned) --missing_[bucket_of_[index]];
  do {
    while (can_launch()) launch_next(false);
    reduction_->poll();
    record_complete();
    step_complete();
  } while (can_launch());
}

// Makes the item's place what this rank has to add to the sum.
void GradientReducer::Engine::contribute(std::size_t index) {
  const State& state = states_[index];
  if (!state.used) {
    stash(index);
    hold(index);
  }
  if (ring_) return;
  if (!state.used || (parts_.count > 0 && !state.opened)) zero(index);
}

ItemNote GradientReducer::Engine::own_note(std::size_t index) const {
  const State& state = states_[index];
  const bool trainable = flags(index).requires_grad;
  const bool missed =
      in_part_ ? state.missed || (part_weight_ > 0 && !state.opened) : weight_ > 0 && !state.used;
  return {.reached = state.used,
          .missed = trainable && missed,
          .frozen = !trainable,
          .trainable = trainable,
          .replaces = state.replaces};
}

void GradientReducer::Engine::start(const Bucket& bucket, std::size_t number) {
  fold(bucket);
  const bool mean = options_.reduction == GradientReduction::mean;
  const bool weighted = weighted_ || parts_.count > 0;
  // With a weight that will be refused, sums mean nothing; a rank that is alone sums where its
  // gradients stay, and must find them as they are.
  const bool valid = has_weight();
  const bool compressed = !bucket.codecs.empty() && compresses();
  const PieceList& list = compressed ? bucket.others : bucket.all;
  const bool steps = stepper_ != nullptr && number < buckets_.size();
  reduction_->start({.pieces = list.pieces,
                     .measured = measures_ ? list.measured : std::span<const comm::Measured>(),
                     .number = static_cast<std::uint32_t>(number),
                     .hash = hash_ + (weighted ? 1 : 0) + (measures_ ? 2 : 0),
                     .weight = valid ? weight_ / options_.predivide : 1,
                     .weighted = weighted,
                     .average = mean,
                     .divisor = mean || !valid ? 1 : 1 / options_.predivide,
                     .codecs = compressed ? bucket.codecs : std::span<comm::Codec* const>(),
                     .sink = steps ? &sinks_[number] : nullptr,
                     .shares = steps ? std::span<const comm::LineRange>(sinks_[number].shares)
                                     : std::span<const comm::LineRange>()});
}

void GradientReducer::Engine::launch_next(bool abandoned) {
  const Bucket& bucket = buckets_[launched_];
  const bool valid = has_weight();
  auto* own = reinterpret_cast<std::uint8_t*>(reduction_->segment() + bucket.notes);
  own[Note::abandoned] = abandoned;
  own[Note::invalid_weight] = !valid;
  own[Note::positive_weight] = valid && weight_ > 0;
  own[Note::asked_for_squares] = asked_for_squares_;
  own[Note::hook_failed] = hook_failure_ != nullptr;
  own[Note::hook_passed] = hook_failure_ == nullptr;
  auto* note = reinterpret_cast<ItemNote*>(own + Note::first_item);
  for (const std::uint32_t index : bucket.items) {
    contribute(index);
    *note++ = own_note(index);
  }
  if (ring_) fill_slot(bucket);
  if (launched_ + 1 == buckets_.size()) {
    for (const std::uint32_t index : left_out_) *note++ = own_note(index);
  }
  start(bucket, launched_);
  launch_times_[launched_] = timeline::enabled() ? timeline::now() : -1;
  ++launched_;
}

// What no bucket has, and some rank has a gradient of: all ranks know that from the notes.
void GradientReducer::Engine::launch_late() {
  late_.items.clear();
  for (const std::uint32_t index : left_out_) {
    if (agreed_[index].reached != 0) late_.items.push_back(index);
  }
  if (late_.items.empty()) return;
  for (const std::uint32_t index : late_.items) {
    contribute(index);
    if (ring_) reduce_late(index);
  }
  if (ring_) return;
  late_.all = pieces_of(ranges_, late_.items);
  if (!late_.all.pieces.empty()) start(late_, buckets_.size());
}

void GradientReducer::Engine::record_complete() {
  const std::uint64_t completed = reduction_->completed() - completed_before_;
  for (; recorded_ < std::min<std::uint64_t>(completed, buckets_.size()); ++recorded_) {
    if (!timeline::enabled() || launch_times_[recorded_] < 0) continue;
    timeline::record_overlapping(fmt::format("bucket {}", recorded_), launch_times_[recorded_],
                                 timeline::now());
  }
}

// Tells whether all that was launched is reduced, and all ranks have said that they reduce here.
void GradientReducer::Engine::wait_until(const std::function<bool(bool all)>& done) {
  const timeline::Span span("wait");
  using Clock = std::chrono::steady_clock;
  const Clock::time_point begin = Clock::now();
  comm::Calls* calls = comm::Calls::of(callers_);
  comm::Wait pause = reduction_->new_wait();
  while (true) {
    bool reduced = false;
    try {
      reduced = reduction_->poll();
    } catch (...) {
      // A rank that makes another call may have gone by now, and the call says more.
      if (calls != nullptr) calls->check_others();
      throw;
    }
    record_complete();
    step_complete();
    const bool called = calls == nullptr || calls->test();
    if (done(called && reduced)) break;
    const bool others_call = reduced && calls != nullptr;
    if (pause.pause()) {
      pause.tell([&] {
        return others_call ? calls->describe_missing()
                           : reduction_->describe_missing() + describe_under_way();
      });
      continue;
    }
    if (others_call) calls->give_up(pause);
    reduction_->give_up(pause, describe_under_way());
  }
  waited_ += std::chrono::duration<double>(Clock::now() - begin).count();
}

void GradientReducer::Engine::read_notes() {
  const auto read = [&](const Bucket& bucket, std::size_t first,
                        std::span<const std::uint32_t> items) {
    const std::byte* notes = reduction_->result() + bucket.notes + Note::first_item;
    for (std::size_t k = 0; k < items.size(); ++k) {
      std::memcpy(&agreed_[items[k]], notes + (first + k) * sizeof(ItemNote), sizeof(ItemNote));
    }
  };
  for (const Bucket& bucket : buckets_) read(bucket, 0, bucket.items);
  read(buckets_.back(), buckets_.back().items.size(), left_out_);
}

void GradientReducer::Engine::finish_round(std::exception_ptr failure) {
  if (failure == nullptr) failure = deferred_failure_;
  deferred_failure_ = nullptr;
  if (ring_ && stepper_ == nullptr) {
    undo_round();
    if (failure != nullptr) std::rethrow_exception(failure);
    check_steps();
  }
  try {
    check_thread();
    if (round_hooks_.before && round_hooks_.before(failure != nullptr)) failure = nullptr;
    if (comm::Calls* calls = comm::Calls::of(callers_)) {
      calls->start({.call = comm::Call::gradients, .number = number_});
    }
    while (launched_ < buckets_.size()) {
      if (!has_slot()) wait_until([this](bool) { return has_slot(); });
      launch_next(failure != nullptr);
    }
    wait_until([](bool all) { return all; });
    read_notes();
    launch_late();
    reduction_->wait();
  } catch (...) {
    reduction_->set_failed(describe_current_exception().message);
    undo_round();
    throw;
  }
  check_round(failure);
  report_missing();
  find_scales();
  find_non_finite();
  for (std::size_t i = 0; i < items_.size(); ++i) settle(i);
  if (stepper_ != nullptr) end_steps();
  measures_ = stepper_ == nullptr && (measures_ || noted(Note::asked_for_squares));
  follow_frozen();
  if (!planned_) agree_on_plan();
  const double weight = weight_;
  ++reductions_;
  comm::Place::count_step();
  end_round();
  if (round_hooks_.after) round_hooks_.after(weight);
  if (table()->final_hooks > 0) run_final_hooks();
}

// Where a hook has thrown on some ranks only, the others hear of that in the next round.
void GradientReducer::Engine::run_final_hooks() {
  try {
    for (std::size_t i = 0; i < items_.size(); ++i) {
      if (agreed_[i].reached != 0) items_[i].parameter.run_final_hooks();
    }
  } catch (...) {
    hook_failure_ = std::current_exception();
    throw;
  }
}

// The gradient of an item that some rank used is now what was there before plus the mean; that of
// one that none used is as it was.
void GradientReducer::Engine::settle(std::size_t index) {
  if (agreed_[index].reached == 0) return restore(index);
  release(index);
  if (compressed_[index] != nullptr) compressed_[index]->accept();
  State& state = states_[index];
  flags(index).has_gradient = true;
  flags(index).reduced = !ring_;
  state.used = false;
  state.measured = measures_;
  const bool adds = std::exchange(state.stashed, false) && agreed_[index].replaces == 0;
  const double scale = scales_.empty() ? 1 : scales_[index];
  if (!adds && scale == 1) return;
  Item& item = items_[index];
  Tensor& gradient = item.parameter.mutable_grad();
  dispatch_floating(gradient.dtype(), [&]<class T>() {
    if (scale != 1) {
      kernels::scale(gradient.size(), static_cast<T>(scale), gradient.data<T>());
    }
    if (adds) {
      kernels::add_scaled(gradient.size(), T{1}, std::as_const(item.earlier).data<T>(),
                          gradient.data<T>());
    }
  });
}

// The first request is noted in the next round; all ranks measure from the one after it on.
std::optional<double> GradientReducer::Engine::sum_squares(std::size_t index) {
  // A rank that is alone finds its sums where they are: to measure them would be the same pass.
  asked_for_squares_ = communicator_.size() > 1;
  if (!states_[index].measured) return std::nullopt;
  return states_[index].squares;
}

void GradientReducer::Engine::end_round() noexcept {
  launched_ = stepped_ = 0;
  ++rounds_;
  for (std::size_t b = 0; b < buckets_.size(); ++b) {
    missing_[b] = static_cast<std::uint32_t>(buckets_[b].items.size());
  }
  recorded_ = 0;
  hook_failure_ = nullptr;
  completed_before_ = reduction_->completed();
  parts_done_ = 0;
  in_part_ = false;
  part_weight_ = 0;
  if (std::exchange(weighted_, false)) weight_ = 1;
  for (State& state : states_) {
    state.complete = state.opened = state.missed = state.replaces = false;
    state.reached_weight = 0;
  }
  for (const auto& gradient : compressed_) {
    if (gradient != nullptr) gradient->end();
  }
}

}  // namespace lockstep
