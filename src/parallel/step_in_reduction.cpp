#include "lockstep/parallel/step_in_reduction.hpp"

#include <algorithm>
#include <cstring>
#include <deque>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "lockstep/core/error.hpp"
#include "parallel/bucket_stepper.hpp"
#include "parallel/reducer_engine.hpp"
#include "parallel/shards.hpp"

namespace lockstep {

class ShardedOptimizer::Stepper : public BucketStepper {
 public:
  Stepper(ShardedOptimizer& optimizer, double gradient_scale, bool mean)
      : optimizer_(optimizer), gradient_scale_(gradient_scale), mean_(mean) {}

  void check(const std::vector<Parameter>& parameters) const {
    optimizer_.check_step();
    if (optimizer_.clipping()) throw OptionError("a step in the reduction cannot clip");
    std::set<const void*> known;
    for (const Parameter& parameter : parameters) {
      if (!optimizer_.contains(parameter)) {
        throw OptionError("the reducer has a parameter that no group of the optimizer has");
      }
      known.insert(parameter.identity());
    }
    optimizer_.visit_parameters([&](const NamedParameter& named) {
      if (known.contains(named.parameter.identity())) return;
      throw OptionError("the reducer has no parameter '" + named.name + "' of the optimizer");
    });
    for (const ParamGroup& group : std::as_const(optimizer_).param_groups()) {
      if (optimizer_.steps_whole(group)) {
        throw OptionError("a step in the reduction is one of ranges: not of whole parameters");
      }
    }
  }

  void plan(const std::vector<Bucket>& buckets) override;
  comm::ShardSink& sink(std::size_t bucket) override { return steps_[bucket]; }
  comm::LineRange share(std::size_t bucket) const override { return steps_[bucket].share; }
  void stepped(std::size_t bucket) override;
  void end() override;
  void step(const Parameter& parameter) override {
    optimizer_.step_parameter(parameter, {.gradient_scale = gradient_scale_});
  }

 private:
  // The steps of a bucket.
  struct Steps : comm::ShardSink {
    explicit Steps(Stepper& owner) : owner(owner) {}

    void begin(std::span<const std::byte> notes) override;
    void take(std::size_t offset, std::span<const std::byte> results) override;

    Stepper& owner;
    Bucket items;
    std::vector<std::size_t> shard_items;
    comm::LineRange share = {0, 0};
    std::vector<comm::RangeGather::Ranges> ranges;
    std::vector<std::optional<PiecewiseStep>> under_way;  // of items that have a gradient
  };

  Shards& shards() const { return *optimizer_.shards_; }

  ShardedOptimizer& optimizer_;
  double gradient_scale_;
  bool mean_;  // of gradients, which needs a weight
  std::deque<Steps> steps_;
};

void ShardedOptimizer::Stepper::plan(const std::vector<Bucket>& buckets) {
  std::vector<std::vector<const void*>> blocks;
  for (const Bucket& bucket : buckets) {
    auto& block = blocks.emplace_back();
    for (const Item& item : bucket) block.push_back(item.parameter.identity());
  }
  optimizer_.cut(blocks);
  optimizer_.settle_values();
  steps_.clear();
  const int ranks = shards().ranks.size(), rank = shards().ranks.rank();
  for (std::size_t b = 0; b < buckets.size(); ++b) {
    Steps& steps = steps_.emplace_back(*this);
    steps.items = buckets[b];
    for (const Item& item : steps.items) {
      steps.shard_items.push_back(shards().index_of.at(item.parameter.identity()));
    }
    const ShardPlan& plan = shards().plan;
    const std::size_t begin = plan.part(b, 0).begin;
    for (int r = 0; r < ranks; ++r) {
      auto& of_rank = steps.ranges.emplace_back();
      if (const auto part = plan.part(b, r); part.begin < part.end) of_rank.push_back(part);
    }
    const auto part = plan.part(b, rank);
    steps.share = {(part.begin - begin) / comm::line_bytes, (part.end - begin) / comm::line_bytes};
    steps.under_way.resize(steps.items.size());
  }
}

void ShardedOptimizer::Stepper::Steps::begin(std::span<const std::byte> notes) {
  const bool spoilt = notes[Note::abandoned] != std::byte{0} ||
                      notes[Note::invalid_weight] != std::byte{0} ||
                      (owner.mean_ && notes[Note::positive_weight] == std::byte{0});
  for (std::size_t i = 0; i < items.size(); ++i) {
    under_way[i].reset();
    ItemNote note;
    std::memcpy(&note, notes.data() + items[i].note, sizeof note);
    if (spoilt || note.reached == 0 || (note.frozen != 0 && note.trainable != 0)) continue;
    under_way[i] = owner.optimizer_.begin_step(items[i].parameter);
    owner.optimizer_.end_step(*under_way[i]);
  }
}

void ShardedOptimizer::Stepper::Steps::take(std::size_t offset,
                                            std::span<const std::byte> results) {
  const auto begins_after = [](std::size_t at, const Item& item) { return at < item.offset; };
  auto item = std::upper_bound(items.begin(), items.end(), offset, begins_after) - 1;
  while (!results.empty()) {
    const Tensor& value = std::as_const(item->parameter).value();
    const std::size_t size = item_size(value.dtype());
    const std::size_t end = item->offset + static_cast<std::size_t>(value.padded_size()) * size;
    const std::size_t used = std::min(results.size(), end - offset);
    const auto begin = static_cast<std::int64_t>((offset - item->offset) / size);
    const auto numbers = std::min(static_cast<std::int64_t>(used / size), value.size() - begin);
    const auto index = static_cast<std::size_t>(item - items.begin());
    if (under_way[index] && numbers > 0) {
      owner.optimizer_.step_piece(*under_way[index], begin,
                                  results.first(static_cast<std::size_t>(numbers) * size),
                                  owner.gradient_scale_);
      owner.shards().put_borrowed(shard_items[index], {begin, numbers});
    }
    results = results.subspan(used);
    offset += used;
    ++item;
  }
}

void ShardedOptimizer::Stepper::stepped(std::size_t bucket) {
  Shards& shards = this->shards();
  if (shards.memory->node().placement().nodes.size() > 1) return;  // all of them at the end
  shards.memory->copy_from_neighbours(steps_[bucket].ranges);
  for (const std::size_t item : steps_[bucket].shard_items) shards.take_borrowed(item);
}

void ShardedOptimizer::Stepper::end() {
  Shards& shards = this->shards();
  if (shards.memory->node().placement().nodes.size() == 1) return shards.ranks.barrier();
  shards.memory->gather(shards.ranges);
  for (std::size_t i = 0; i < shards.items.size(); ++i) shards.take_borrowed(i);
}

StepInReduction::StepInReduction(GradientReducer& reducer, ShardedOptimizer& optimizer,
                                 const StepOptions& options)
    : reducer_(reducer),
      stepper_(std::make_unique<ShardedOptimizer::Stepper>(
          optimizer, options.gradient_scale,
          reducer.engine_->options().reduction == GradientReduction::mean)) {
  GradientReducer::Engine& engine = *reducer.engine_;
  engine.communicator().agree([&] { stepper_->check(engine.parameters()); });
  if (optimizer.communicator().size() > 1) {
    engine.set_stepper(stepper_.get());
  } else {
    alone_.emplace(StepInBackward::Optimizers{optimizer}, options);
  }
}

StepInReduction::~StepInReduction() { reducer_.engine_->end_stepping(); }

}  // namespace lockstep
