#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <vector>

#include "comm/range_gather.hpp"
#include "lockstep/parallel/sharded_optimizer.hpp"
#include "parallel/shard_plan.hpp"

namespace lockstep {

/// Which rank has what of a ShardedOptimizer's parameters, and the memory that their values are in.
struct ShardedOptimizer::Shards {
  Shards(const Communicator& communicator, const ShardedOptimizerOptions& options)
      : ranks(communicator), options(options) {}

  // A parameter and where its value lies in the memory.
  struct Item {
    Parameter parameter;
    Tensor place;
  };

  std::byte* at(std::size_t item) const { return memory->memory() + plan.offset(item); }
  // What lies elsewhere goes through the memory.
  void put_borrowed(std::size_t item, const ShardPlan::Share& numbers) {
    const Tensor& value = items[item].parameter.value();
    if (!value.borrowed()) return;
    const Shape shape{numbers.size};
    items[item].place.window(numbers.begin, shape).copy_from(value.window(numbers.begin, shape));
  }
  void put_borrowed(std::size_t item) { put_borrowed(item, plan.share(item, ranks.rank())); }
  void take_borrowed(std::size_t item) {
    Parameter& parameter = items[item].parameter;
    if (parameter.value().borrowed()) parameter.mutable_value().copy_from(items[item].place);
  }

  Communicator ranks;
  ShardedOptimizerOptions options;
  std::vector<Item> items;                      // in the order of the plan
  std::map<const void*, std::size_t> index_of;  // by identity
  std::vector<bool> whole;                      // of each group, when the plan was made
  ShardPlan plan;
  std::vector<comm::RangeGather::Ranges> ranges;
  std::optional<comm::RangeGather> memory;
  bool in_reduction = false;  // steps take place there, by blocks of the plan
};

}  // namespace lockstep
