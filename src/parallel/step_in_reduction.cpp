#include "lockstep/parallel/step_in_reduction.hpp"

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
  Stepper(ShardedOptimizer& optimizer, double gradient_scale)
      : optimizer_(optimizer), gradient_scale_(gradient_scale) {}
  ~Stepper() {
    // One that is refused has planned nothing, and another may step.
    if (planned_) shards().in_reduction = false;
  }

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

  void plan(const std::vector<Block>& blocks) override;
  comm::LineRange part(std::size_t block, int rank) const override;
  void begin(std::size_t block, std::size_t parameter, bool steps) override;
  void step(std::size_t block, std::size_t parameter, std::int64_t begin,
            std::span<const std::byte> gradient) override;
  std::span<std::byte> values(std::size_t block, int rank, std::size_t k, std::size_t n) override;
  std::shared_ptr<void> memory() const override { return shards().memory->node().owner(); }
  void stepped(std::size_t block, std::size_t k, std::size_t n) override;
  void end() override;
  void step(const Parameter& parameter) override {
    optimizer_.step_parameter(parameter, {.gradient_scale = gradient_scale_});
  }

 private:
  struct Item {
    Parameter parameter;
    std::size_t of_shards = 0;  // its index there
    std::optional<PiecewiseStep> under_way = {};
  };

  Shards& shards() const { return *optimizer_.shards_; }
  comm::RangeGather::Range range(std::size_t block, int rank, std::size_t k, std::size_t n) const;

  ShardedOptimizer& optimizer_;
  double gradient_scale_;
  bool planned_ = false;
  std::vector<std::vector<Item>> blocks_;
  std::vector<int> remote_;                        // ranks of other nodes
  std::vector<comm::RangeGather::Ranges> ranges_;  // of theirs, in a block
};

void ShardedOptimizer::Stepper::plan(const std::vector<Block>& blocks) {
  std::vector<std::vector<const void*>> identities;
  for (const Block& block : blocks) {
    auto& of_block = identities.emplace_back();
    for (const Parameter& parameter : block) of_block.push_back(parameter.identity());
  }
  optimizer_.cut(identities);
  shards().in_reduction = planned_ = true;
  optimizer_.settle_values();
  blocks_.clear();
  for (const Block& block : blocks) {
    auto& items = blocks_.emplace_back();
    for (const Parameter& parameter : block) {
      items.push_back({parameter, shards().index_of.at(parameter.identity())});
    }
  }
  ranges_.resize(static_cast<std::size_t>(shards().ranks.size()));
  const Placement& placement = shards().memory->node().placement();
  remote_.clear();
  for (const std::vector<int>& ranks : placement.nodes) {
    if (&ranks == &placement.neighbours()) continue;
    remote_.insert(remote_.end(), ranks.begin(), ranks.end());
  }
}

comm::LineRange ShardedOptimizer::Stepper::part(std::size_t block, int rank) const {
  const ShardPlan& plan = shards().plan;
  const std::size_t begin = plan.part(block, 0).begin;
  const comm::RangeGather::Range part = plan.part(block, rank);
  return {(part.begin - begin) / comm::line_bytes, (part.end - begin) / comm::line_bytes};
}

void ShardedOptimizer::Stepper::begin(std::size_t block, std::size_t parameter, bool steps) {
  if (parameter == 0) optimizer_.follow_groups();
  Item& item = blocks_[block][parameter];
  item.under_way.reset();
  if (!steps) return;
  item.under_way = optimizer_.begin_step(item.parameter);
  optimizer_.end_step(*item.under_way);
}

void ShardedOptimizer::Stepper::step(std::size_t block, std::size_t parameter, std::int64_t begin,
                                     std::span<const std::byte> gradient) {
  const Item& item = blocks_[block][parameter];
  if (!item.under_way) return;
  optimizer_.step_piece(*item.under_way, begin, gradient, gradient_scale_);
  Shards& shards = this->shards();
  const std::size_t size = item_size(item.parameter.dtype());
  shards.put_borrowed(item.of_shards, {begin, static_cast<std::int64_t>(gradient.size() / size)});
  // While they are in the cache. The neighbours have their gradients of this block, and so need no values of it.
  const std::size_t offset =
      shards.plan.offset(item.of_shards) + static_cast<std::size_t>(begin) * size;
  shards.memory->copy_to_neighbours({offset, offset + gradient.size()});
}

// Of the memory of values.
comm::RangeGather::Range ShardedOptimizer::Stepper::range(std::size_t block, int rank,
                                                          std::size_t k, std::size_t n) const {
  const comm::RangeGather::Range part = shards().plan.part(block, rank);
  const comm::LineRange lines =
      slice_of({part.begin / comm::line_bytes, part.end / comm::line_bytes}, k, n);
  return {lines.begin * comm::line_bytes, lines.end * comm::line_bytes};
}

std::span<std::byte> ShardedOptimizer::Stepper::values(std::size_t block, int rank, std::size_t k,
                                                       std::size_t n) {
  const comm::RangeGather::Range of_rank = range(block, rank, k, n);
  return {shards().memory->memory() + of_rank.begin, of_rank.end - of_rank.begin};
}

void ShardedOptimizer::Stepper::stepped(std::size_t block, std::size_t k, std::size_t n) {
  Shards& shards = this->shards();
  for (const int rank : remote_) {
    ranges_[static_cast<std::size_t>(rank)].assign(1, range(block, rank, k, n));
  }
  shards.memory->copy_from_neighbours(ranges_);
  if (k + 1 < n) return;
  for (const Item& item : blocks_[block]) {
    if (item.under_way) shards.take_borrowed(item.of_shards);
  }
}

void ShardedOptimizer::Stepper::end() { shards().ranks.barrier(); }

StepInReduction::StepInReduction(GradientReducer& reducer, ShardedOptimizer& optimizer,
                                 const StepOptions& options)
    : reducer_(reducer),
      stepper_(std::make_unique<ShardedOptimizer::Stepper>(optimizer, options.gradient_scale)) {
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
