#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "comm/reduction.hpp"
#include "lockstep/autograd/parameter.hpp"
#include "lockstep/parallel/gradient_reducer.hpp"
#include "parallel/bucket_plan.hpp"
#include "parallel/bucket_stepper.hpp"
#include "parallel/compressed_gradient.hpp"
#include "parallel/gradient_ring.hpp"
#include "parallel/part_sums.hpp"

namespace lockstep {

/// Item i of the layout is the parameter that was i-th from the end of the list: the order in which
/// a backward completes gradients, mostly.
///
/// A round begins with the first gradient that this rank contributes, and ends when that of all
/// ranks is reduced. In it each bucket is launched once, in the order of the plan, as soon as this
/// rank has all gradients of it and of those before; the last one, and what is not complete, at the
/// end. So every rank launches the same buckets in the same order, whatever it contributes.
///
/// The plan leaves out items that were frozen in the round before. What the ranks note tells all of
/// them where that has changed: gradients of such items then travel in a bucket of their own, and
/// the next round has another plan.
///
/// With a ring, a gradient is in memory of its own until its bucket is launched, for which the bucket that
/// had its place before must be done.
class GradientReducer::Engine : public autograd::GradientOwner {
 public:
  Engine(std::vector<NamedParameter> parameters, const Communicator& communicator,
         const GradientReducerOptions& options, std::int64_t logical_replicas = 0);
  ~Engine() override;
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  bool open(std::size_t index) override;
  void complete(std::size_t index) override;
  void finish() override {
    if (!deferred()) reduce();
  }
  void abandon() noexcept override;
  std::optional<double> sum_squares(std::size_t index) override;
  std::optional<int> non_finite_rank() const override { return non_finite_rank_; }

  /// Ends the round.
  void reduce() { finish_round(nullptr); }
  /// Takes part in the round of the other ranks, and lets it fail: throws what all ranks throw, the
  /// exception of the lowest one that has one.
  void cancel(const std::exception_ptr& failure) { finish_round(failure); }
  /// The round to come is to fail on all ranks, unless it is discarded.
  void fail_deferred(const std::exception_ptr& failure) noexcept;
  /// What cancel() has thrown where a backward was abandoned, once.
  std::exception_ptr take_cancellation() noexcept { return std::exchange(cancellation_, nullptr); }
  /// StateError while a round is under way.
  void discard();

  /// The parts of each batch that this rank has, where there are logical replicas.
  comm::Parts::Range parts() const noexcept { return sums_->range(); }
  /// Whether gradients come from DataParallel::backward, part by part.
  void set_in_batch(bool in_batch) noexcept { in_batch_ = in_batch; }
  /// The gradients to come are those of a part of this rank's batch, or of its next batch in the
  /// round, of that weight. With logical replicas, what a part before has not reached counts as zero.
  void begin_part(double weight);

  void mark_ready(const Parameter& parameter);

  const Communicator& communicator() const noexcept { return communicator_; }
  const GradientReducerOptions& options() const noexcept { return options_; }
  bool shared() const noexcept { return reduction_->shared(); }
  std::uint64_t rounds() const noexcept { return rounds_; }
  double waited() const noexcept { return waited_; }

  std::shared_ptr<const void> defer();
  bool deferred() const noexcept { return !deferral_.expired(); }
  /// StateError while a round is under way.
  void set_weight(double weight);
  double weight() const noexcept { return weight_; }
  /// Until the end of the round, gradients come multiplied by the weight of what they are of, such
  /// as sums over samples, which is added to that of this rank.
  void add_weighted(double weight);
  bool weighted() const noexcept { return weighted_; }
  /// Whether gradients wait to be reduced.
  bool accumulates() const noexcept { return table()->unreduced > 0; }

  StateDict state_dict() const;
  void check_restore(const StateDict& source) const;
  void restore(const StateDict& source);

  /// What all ranks call in each round: before its end, with whether this rank fails it, returning
  /// whether that is but the consequence of another's failure; and after it where none has, with the
  /// weight of this rank. `undo` is called by each rank that forgets what has come together.
  struct RoundHooks {
    std::function<bool(bool failed)> before = {};
    std::function<void(double weight)> after = {};
    std::function<void()> undo = {};
  };
  void set_round_hooks(RoundHooks hooks) { round_hooks_ = std::move(hooks); }

  /// Steps parameters in the course of the rounds to come, after which there are no gradients. Collective.
  /// StateError where gradients are there or wait to be reduced; OptionError for options that need all
  /// gradients before a step.
  void set_stepper(BucketStepper* stepper);
  void end_stepping() noexcept;
  std::vector<Parameter> parameters() const;

 private:
  struct Item {
    explicit Item(NamedParameter named)
        : name(std::move(named.name)), parameter(std::move(named.parameter)) {}

    std::string name;
    Parameter parameter;
    Tensor local;    // in this rank's segment, without a ring
    Tensor reduced;  // in the result of the node
    Tensor earlier;  // memory for what was there before a round, once that was needed
  };

  // Side by side, since all are looked at in each step.
  struct State {
    bool used = false;          // this rank has a gradient that is not reduced yet
    bool opened = false;        // the part that is under way has one
    bool missed = false;        // by a part of this rank
    bool complete = false;      // and will not add to it in this round
    bool stashed = false;       // what was there before the round is in `earlier`
    bool replaces = false;      // what was there before, since the caller has written it
    bool ordered = false;       // it is in order_
    bool planned = true;        // it is in a bucket
    bool measured = false;      // when it was last reduced
    double reached_weight = 0;  // of the parts that have one
    double squares = 0;         // where it is measured
  };

  // Steps what comes of a bucket.
  struct StepSink : comm::ShardSink {
    StepSink(Engine& engine, std::size_t number) : engine(engine), number(number) {}

    void begin(std::span<const std::byte> notes) override;
    void take(std::size_t offset, std::span<const std::byte> results) override;
    std::span<std::byte> values(int rank) override;
    std::shared_ptr<void> memory() const override { return engine.stepper_->memory(); }

    Engine& engine;
    std::size_t number;
    std::vector<comm::LineRange> shares = {};  // of the ranks
  };

  std::vector<Tensor> lay_out();
  void bind(const std::vector<Tensor>& values);
  /// Where gradients are computed.
  std::byte* work_slot() const noexcept {
    return reduction_->segment() + sums_->work_slot() * parts_.slot_bytes;
  }
  void zero(std::size_t index);
  void end_part();
  void fold(const Bucket& bucket);
  void fold(const comm::Piece& range);
  void make_compressors();
  void plan_compression(Bucket& bucket) const;
  /// Whether the round does that.
  bool compresses() const noexcept;
  void make_plan(const std::vector<std::uint32_t>& order);
  std::vector<std::uint32_t> planned_order() const;
  void agree_on_plan();

  void check_thread();
  void check_in_batch() const;
  /// What sums in f32 can be made with.
  bool has_weight() const noexcept;
  comm::Piece range_of(std::size_t index) const;
  void hold(std::size_t index);
  void release(std::size_t index) noexcept;
  void stash(std::size_t index);
  void restore(std::size_t index) noexcept;
  void restore_all() noexcept;
  void undo_round();
  void note_order(std::size_t index);
  void add_complete(std::size_t index);
  bool can_launch() const noexcept;
  bool has_slot() const noexcept { return !ring_ || launched_ < stepped_ + ring_->slots(); }

  void contribute(std::size_t index);
  Tensor& find_storage(std::size_t index);
  void read(std::size_t index, std::size_t begin, std::size_t bytes, std::byte* to);
  void drop_storage(std::size_t index) noexcept;
  void fill_slot(const Bucket& bucket);
  ItemNote own_note(std::size_t index) const;
  void start(const Bucket& bucket, std::size_t number);
  void launch_next(bool abandoned);
  void launch_late();
  void wait_until(const std::function<bool(bool all)>& done);
  void read_notes();
  bool noted(Note::Index note) const;
  void finish_round(std::exception_ptr failure);
  void settle(std::size_t index);
  void run_final_hooks();

  void check_round(const std::exception_ptr& failure);
  void check_items() const;
  std::string names_where(const std::function<bool(std::size_t)>& condition) const;
  std::string describe_under_way() const;
  void report_missing();
  void find_scales();
  double sum_measured(std::size_t index) const;
  bool has_non_finite(std::size_t index) const;
  void find_non_finite();
  void follow_frozen();
  void record_complete();
  void plan_steps();
  void place_in_segment(Bucket& bucket);
  comm::LineRange share_of(const Bucket& bucket, int rank) const;
  void check_steps() const;
  void step_complete();
  void end_steps();
  void reduce_late(std::size_t index);
  void end_round() noexcept;
  autograd::GradientFlags& flags(std::size_t index) { return table()->flags[index]; }
  const autograd::GradientFlags& flags(std::size_t index) const { return table()->flags[index]; }

  Communicator callers_;          // whose collective calls the rounds are among
  Communicator communicator_;     // of this reducer
  Communicator reduction_ranks_;  // whose messages are those of reduction_ alone
  GradientReducerOptions options_;
  std::uint32_t number_ = 0;  // of this reducer, of those on callers_
  std::uint64_t hash_ = 0;    // of names, dtypes and shapes
  std::vector<Item> items_;
  std::vector<State> states_;
  std::vector<GradientRange> ranges_;
  std::size_t notes_ = 0;  // offset of the notes in the segment
  std::optional<GradientRing> ring_;
  std::optional<comm::Reduction> reduction_;

  std::vector<std::unique_ptr<CompressedGradient>> compressed_;  // items that are, or null
  std::uint64_t reductions_ = 0;                                 // that have succeeded

  std::vector<Bucket> buckets_;
  std::vector<std::uint32_t> left_out_;   // items in none
  std::vector<std::uint32_t> bucket_of_;  // of each item, or the first of its slices
  std::size_t last_block_ = 0;            // the last bucket, or the first of its slices
  std::vector<std::uint32_t> missing_;    // items that are not complete yet, of each bucket
  std::vector<std::uint32_t> order_;  // in which gradients became complete, until that is agreed on
  bool planned_ = false;
  Bucket late_;  // of items that are in none of the others, and have a gradient all the same

  std::vector<ItemNote> agreed_;  // what the ranks of the last round noted of each item
  std::vector<double> scales_;    // of the means of items that some ranks have missed
  bool reported_missing_ = false;
  bool asked_for_squares_ = false;      // on this rank
  bool measures_ = false;               // since some rank was asked, on all of them alike
  std::optional<int> non_finite_rank_;  // of the last round

  comm::Parts parts_;
  std::optional<PartSums> sums_;
  bool in_batch_ = false;
  bool in_part_ = false;
  double part_weight_ = 0;
  std::size_t parts_done_ = 0;  // in this round

  RoundHooks round_hooks_;
  BucketStepper* stepper_ = nullptr;
  std::vector<StepSink> sinks_;  // of each bucket
  std::size_t stepped_ = 0;      // buckets in this round
  std::exception_ptr cancellation_;
  std::exception_ptr deferred_failure_;
  std::exception_ptr hook_failure_;  // of a final hook, after the last round
  std::weak_ptr<const void> deferral_;
  double weight_ = 1;
  bool weighted_ = false;
  std::size_t launched_ = 0;            // buckets of this round
  std::uint64_t rounds_ = 0;            // that have ended
  std::uint64_t completed_before_ = 0;  // reductions, when this round began
  double waited_ = 0;                   // seconds
  std::vector<double> launch_times_;    // of buckets in this round, for the timeline
  std::size_t recorded_ = 0;            // buckets in it
};

}  // namespace lockstep
