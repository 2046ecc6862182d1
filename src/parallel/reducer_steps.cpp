// Steps in the course of a round.
#include <algorithm>
#include <cstring>
#include <utility>

#include "lockstep/core/error.hpp"
#include "parallel/reducer_engine.hpp"

namespace lockstep {

void GradientReducer::Engine::set_stepper(BucketStepper* stepper) {
  communicator_.agree([&] {
    if (stepper_ != nullptr)
      throw StateError("the parameters are stepped in the reduction already");
    if (table()->unreduced > 0) {
      throw StateError("gradients wait to be reduced: finish() or discard() comes first");
    }
    if (options_.missing == MissingGradients::leave_out) {
      throw OptionError(
          "a step in the reduction does not know yet who misses a gradient: no "
          "MissingGradients::leave_out");
    }
    if (parts_.count > 0 || options_.compression != nullptr) {
      throw OptionError(
          "a step in the reduction needs gradients bucket by bucket: no logical replicas, no "
          "compression");
    }
    for (const Item& item : items_) {
      if (item.parameter.has_grad()) {
        throw StateError(
            "there are gradients, to which a step in the reduction cannot add: "
            "zero_grad() comes first");
      }
    }
  });
  stepper_ = stepper;
  try {
    plan_steps();
  } catch (...) {
    stepper_ = nullptr;
    throw;
  }
  measures_ = false;
}

// What is under way would still be handed to the stepper.
void GradientReducer::Engine::end_stepping() noexcept {
  stepper_ = nullptr;
  if (launched_ == 0) return;
  try {
    reduction_->set_failed("a StepInReduction has ended in the course of a reduction");
  } catch (const std::exception&) {  // the others notice that this rank goes
  }
}

std::vector<Parameter> GradientReducer::Engine::parameters() const {
  std::vector<Parameter> parameters;
  for (const Item& item : items_) parameters.push_back(item.parameter);
  return parameters;
}

void GradientReducer::Engine::check_steps() const {
  if (!ring_ || stepper_ != nullptr) return;
  throw StateError("gradients that are not kept need a StepInReduction in each reduction");
}

void GradientReducer::Engine::plan_steps() {
  if (stepper_ == nullptr) return;
  std::vector<BucketStepper::Block> blocks;
  for (Bucket& bucket : buckets_) {
    if (!ring_) place_in_segment(bucket);
    if (bucket.slice == 0) {
      BucketStepper::Block& block = blocks.emplace_back();
      for (const std::uint32_t index : bucket.items) block.push_back(items_[index].parameter);
    }
    bucket.block = blocks.size() - 1;
  }
  stepper_->plan(blocks);
  const auto part = [this](std::size_t block, int rank) { return stepper_->part(block, rank); };
  if (ring_) ring_->place(buckets_, ranges_, part);
  sinks_.clear();
  for (std::size_t b = 0; b < buckets_.size(); ++b) {
    StepSink& sink = sinks_.emplace_back(*this, b);
    for (int rank = 0; rank < communicator_.size(); ++rank) {
      sink.shares.push_back(share_of(buckets_[b], rank));
    }
  }
}

// Of a slice, each rank has a place.
comm::LineRange GradientReducer::Engine::share_of(const Bucket& bucket, int rank) const {
  if (bucket.slices == 1) return stepper_->part(bucket.block, rank);
  const GradientPlace& place = bucket.places[static_cast<std::size_t>(rank)];
  const std::size_t begin = (place.offset - bucket.places.front().offset) / comm::line_bytes;
  return {begin, begin + place.bytes / comm::line_bytes};
}

// Parameters without numbers lie where the next one does, and come before it.
void GradientReducer::Engine::place_in_segment(Bucket& bucket) {
  std::sort(bucket.items.begin(), bucket.items.end(), [this](std::uint32_t a, std::uint32_t b) {
    const auto key = [this](std::uint32_t i) {
      return std::pair(ranges_[i].offset, ranges_[i].bytes);
    };
    return key(a) < key(b);
  });
  bucket.places.clear();
  for (std::size_t i = 0; i < bucket.items.size(); ++i) {
    const GradientRange& range = ranges_[bucket.items[i]];
    bucket.places.push_back({i, range.offset, 0, range.bytes});
  }
}

// Slices are launched when all of their gradient is there, and so all are stepped, or none.
void GradientReducer::Engine::StepSink::begin(std::span<const std::byte> notes) {
  const Bucket& bucket = engine.buckets_[number];
  if (bucket.slice > 0) return;
  const auto noted = [&](Note::Index note) { return notes[note] != std::byte{0}; };
  const bool mean = engine.options_.reduction == GradientReduction::mean;
  const bool spoilt = noted(Note::abandoned) || noted(Note::invalid_weight) ||
                      (mean && !noted(Note::positive_weight));
  for (std::size_t i = 0; i < bucket.items.size(); ++i) {
    ItemNote note;
    std::memcpy(&note, notes.data() + Note::first_item + i * sizeof note, sizeof note);
    const bool conflicts = note.frozen != 0 && note.trainable != 0;
    engine.stepper_->begin(bucket.block, i, !spoilt && note.reached != 0 && !conflicts);
  }
}

void GradientReducer::Engine::StepSink::take(std::size_t offset,
                                             std::span<const std::byte> results) {
  const Bucket& bucket = engine.buckets_[number];
  const auto begins_after = [](std::size_t at, const GradientPlace& p) { return at < p.offset; };
  auto place =
      std::upper_bound(bucket.places.begin(), bucket.places.end(), offset, begins_after) - 1;
  while (!results.empty()) {
    const GradientRange& gradient = engine.ranges_[bucket.items[place->item]];
    const std::size_t size = item_size(gradient.dtype);
    const std::size_t used = std::min(results.size(), place->offset + place->bytes - offset);
    const std::size_t begin = (place->begin + offset - place->offset) / size;
    if (begin < gradient.numbers) {
      const std::size_t numbers = std::min(used / size, gradient.numbers - begin);
      engine.stepper_->step(bucket.block, place->item, static_cast<std::int64_t>(begin),
                            results.first(numbers * size));
    }
    results = results.subspan(used);
    offset += used;
    ++place;
  }
}

std::span<std::byte> GradientReducer::Engine::StepSink::values(int rank) {
  const Bucket& bucket = engine.buckets_[number];
  return engine.stepper_->values(bucket.block, rank, bucket.slice, bucket.slices);
}

// Goes on with the buckets that all ranks of the node have done.
void GradientReducer::Engine::step_complete() {
  if (stepper_ == nullptr) return;
  const std::uint64_t completed = reduction_->completed() - completed_before_;
  for (; stepped_ < std::min<std::uint64_t>(completed, buckets_.size()); ++stepped_) {
    const Bucket& bucket = buckets_[stepped_];
    stepper_->stepped(bucket.block, bucket.slice, bucket.slices);
  }
}

// What was stepped has no gradient any more, and what was in no bucket is stepped now.
void GradientReducer::Engine::end_steps() {
  for (const std::uint32_t index : left_out_) {
    if (agreed_[index].reached != 0) stepper_->step(items_[index].parameter);
  }
  for (std::size_t i = 0; i < items_.size(); ++i) {
    flags(i).has_gradient = flags(i).reduced = false;
    if (ring_) drop_storage(i);
  }
  stepper_->end();
}

// The mean or sum of what is in no bucket, piece by piece.
void GradientReducer::Engine::reduce_late(std::size_t index) {
  Tensor& storage = find_storage(index);
  if (!states_[index].used) storage.fill(0);
  auto* const gradient = static_cast<std::byte*>(storage.raw());
  const comm::Piece whole = range_of(index);
  for (std::size_t begin = 0; begin < whole.bytes;) {
    const std::size_t bytes = std::min(whole.bytes - begin, ring_->slot_bytes());
    late_.all.pieces = {{.element = whole.element, .op = whole.op, .offset = 0, .bytes = bytes}};
    read(index, begin, bytes, reduction_->segment());
    start(late_, buckets_.size());
    reduction_->wait();
    std::memcpy(gradient + begin, reduction_->result(), std::min(bytes, storage.bytes() - begin));
    begin += bytes;
  }
}

}  // namespace lockstep
