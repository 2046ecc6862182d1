// Steps in the course of a round.
#include <algorithm>
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
  measures_ = false;
  plan_steps();
}

std::vector<Parameter> GradientReducer::Engine::parameters() const {
  std::vector<Parameter> parameters;
  for (const Item& item : items_) parameters.push_back(item.parameter);
  return parameters;
}

void GradientReducer::Engine::plan_steps() {
  if (stepper_ == nullptr) return;
  std::vector<BucketStepper::Bucket> buckets;
  for (const Bucket& bucket : buckets_) {
    BucketStepper::Bucket& steps = buckets.emplace_back();
    std::size_t note = Note::first_item;
    for (const std::uint32_t index : bucket.items) {
      steps.push_back({items_[index].parameter, ranges_[index].offset, note});
      note += sizeof(ItemNote);
    }
    // Parameters without numbers lie where the next one does, and come before it.
    std::sort(steps.begin(), steps.end(), [](const auto& a, const auto& b) {
      return a.offset != b.offset ? a.offset < b.offset : a.parameter.size() < b.parameter.size();
    });
  }
  stepper_->plan(buckets);
}

// Goes on with the buckets that all ranks of the node have done.
void GradientReducer::Engine::step_complete() {
  if (stepper_ == nullptr) return;
  const std::uint64_t completed = reduction_->completed() - completed_before_;
  for (; stepped_ < std::min<std::uint64_t>(completed, buckets_.size()); ++stepped_) {
    if (!is_alone_on_node()) step_results(stepped_);
    stepper_->stepped(stepped_);
  }
}

// What was stepped has no gradient any more, and what was in no bucket is stepped now.
void GradientReducer::Engine::end_steps() {
  for (const std::uint32_t index : left_out_) {
    if (agreed_[index].reached != 0) stepper_->step(items_[index].parameter);
  }
  for (std::size_t i = 0; i < items_.size(); ++i) {
    flags(i).has_gradient = flags(i).reduced = false;
  }
  stepper_->end();
}

// Where sums come from other nodes as well, a rank finds its share in the results.
void GradientReducer::Engine::step_results(std::size_t number) {
  const Bucket& bucket = buckets_[number];
  const comm::Piece& notes = bucket.all.pieces.back();
  comm::ShardSink& sink = stepper_->sink(number);
  sink.begin({reduction_->result() + notes.offset, notes.bytes});
  comm::for_lines(bucket.all.pieces, stepper_->share(number),
                  [&](const comm::Piece&, std::size_t offset, std::size_t bytes) {
                    sink.take(offset, {reduction_->result() + offset, bytes});
                  });
}

}  // namespace lockstep
