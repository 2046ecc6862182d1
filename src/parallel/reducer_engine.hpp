#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <utility>
#include <vector>

#include "comm/reduction.hpp"
#include "lockstep/autograd/parameter.hpp"
#include "lockstep/parallel/gradient_reducer.hpp"
#include "parallel/bucket_plan.hpp"

namespace lockstep {

/// Item i of the layout is the parameter that was i-th from the end of the list: the order in which
/// a backward completes gradients, mostly.
///
/// A round begins with the first gradient that this rank contributes, and ends when that of all
/// ranks is reduced. In it each bucket is launched once, in the order of the plan, as soon as this
/// rank has all gradients of it and of those before; the last one, and what is not complete, at the
/// end. So every rank launches the same buckets in the same order, whatever it contributes.
class GradientReducer::Engine : public autograd::GradientOwner {
 public:
  Engine(std::vector<NamedParameter> parameters, const Communicator& communicator,
         const GradientReducerOptions& options, std::int64_t logical_replicas = 0);
  ~Engine() override;
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  bool open(std::size_t index) override;
  void forget(std::size_t index) noexcept override { states_[index].stashed = false; }
  void complete(std::size_t index) override;
  void finish() override {
    if (!deferred_) reduce();
  }
  void abandon() noexcept override;

  /// Ends the round.
  void reduce() { finish_round(nullptr); }
  /// Takes part in the round of the other ranks, and lets it fail: throws what all ranks throw, the
  /// exception of the lowest one that has one.
  void cancel(const std::exception_ptr& failure) { finish_round(failure); }
  /// What cancel() has thrown where a backward was abandoned, once.
  std::exception_ptr take_cancellation() noexcept { return std::exchange(cancellation_, nullptr); }
  /// StateError while a round is under way.
  void discard();
  /// The parts of each batch that this rank has, where there are logical replicas.
  comm::Parts::Range parts() const noexcept {
    return parts_.of(communicator_.rank(), communicator_.size());
  }
  /// A part of this rank, of those before the last, has no more gradients to come. What a part does
  /// not reach counts as zero.
  void end_part();

  void mark_ready(const Parameter& parameter);

  const Communicator& communicator() const noexcept { return communicator_; }
  void set_deferred(bool deferred) noexcept { deferred_ = deferred; }
  /// StateError while a round is under way.
  void set_weight(double weight);
  /// Whether gradients of parts may come.
  void set_in_parts(bool in_parts) noexcept { in_parts_ = in_parts; }
  bool shared() const noexcept { return reduction_->shared(); }
  std::uint64_t rounds() const noexcept { return rounds_; }

 private:
  struct Item {
    explicit Item(Parameter parameter) : parameter(std::move(parameter)) {}

    Parameter parameter;
    Tensor local;    // in this rank's segment
    Tensor reduced;  // in the result of the node
    Tensor earlier;  // memory for what was there before a round, once that was needed
  };

  // Side by side, since all are looked at in each step.
  struct State {
    bool used = false;      // this rank has a gradient that is not reduced yet
    bool opened = false;    // the part that is under way has one
    bool complete = false;  // and will not add to it in this round
    bool stashed = false;   // what was there before the round is in `earlier`
    bool ordered = false;   // it is in order_
  };

  std::vector<Tensor> lay_out();
  void bind(const std::vector<Tensor>& values);
  std::size_t slots();
  std::byte* slot(std::size_t number) const noexcept {
    return reduction_->segment() + number * parts_.slot_bytes;
  }
  void zero(std::size_t index);
  void fold(const Bucket& bucket);
  void fold(const comm::Piece& range);
  void make_plan(const std::vector<std::uint32_t>& order);
  void agree_on_plan();
  void stash(std::size_t index);
  void restore(std::size_t index) noexcept;
  void restore_all() noexcept;
  void note_order(std::size_t index);
  void add_complete(std::size_t index);
  void launch_next(bool abandoned);
  const std::uint8_t* notes(const Bucket& bucket) const noexcept;
  void finish_round(const std::exception_ptr& failure);
  void check_round(const std::exception_ptr& failure);
  bool anything_used() const noexcept;
  void settle(const Bucket& bucket);
  void record_complete();
  void end_round() noexcept;
  autograd::GradientFlags& flags(std::size_t index) { return table()->flags[index]; }

  Communicator communicator_;
  Communicator reduction_ranks_;  // whose messages are those of reduction_ alone
  GradientReducerOptions options_;
  std::uint64_t hash_ = 0;  // of names, dtypes and shapes
  std::vector<Item> items_;
  std::vector<State> states_;
  std::vector<GradientRange> ranges_;
  std::size_t notes_ = 0;  // offset of the notes in the segment
  std::optional<comm::Reduction> reduction_;

  std::vector<Bucket> buckets_;
  std::vector<std::uint32_t> bucket_of_;  // of each item
  std::vector<std::uint32_t> missing_;    // items that are not complete yet, of each bucket
  std::vector<std::uint32_t> order_;  // in which gradients became complete, until that is agreed on
  bool planned_ = false;
  std::vector<std::uint8_t> reached_;  // items that a round has reduced

  // With several parts a rank, each is computed in the last slot, and folded into those that hold the
  // sums of the parts before.
  comm::Parts parts_;
  std::size_t work_slot_ = 0;
  bool in_parts_ = false;
  std::size_t parts_done_ = 0;                    // in this round
  std::vector<std::vector<comm::Subtree>> sums_;  // in the slots after so many parts

  std::exception_ptr cancellation_;
  bool deferred_ = false;
  double weight_ = 1;
  std::size_t launched_ = 0;            // buckets of this round
  std::uint64_t rounds_ = 0;            // that have ended
  std::uint64_t completed_before_ = 0;  // reductions, when this round began
  std::vector<double> launch_times_;    // of buckets in this round, for the timeline
  std::size_t recorded_ = 0;            // buckets in it
};

}  // namespace lockstep
