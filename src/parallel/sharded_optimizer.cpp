#include "lockstep/parallel/sharded_optimizer.hpp"

#include <fmt/format.h>

#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "comm/drift.hpp"
#include "comm/pull.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/tensor/memory_pool.hpp"
#include "parallel/shards.hpp"
#include "parallel/verify.hpp"
#include "state/state_hashes.hpp"

namespace lockstep {
namespace {

// With the same error on all ranks.
NamedOptimizer make(const std::vector<NamedParameter>& parameters, const optim::UpdateRule& rule,
                    const std::vector<ParamGroupOptions>& groups,
                    const Communicator& communicator) {
  std::optional<NamedOptimizer> optimizer;
  communicator.agree([&] { optimizer.emplace(parameters, rule, groups); });
  return std::move(*optimizer);
}

std::vector<ParamGroupOptions> one_group() {
  return {{.params = [](const NamedParameter&) { return true; }}};
}

}  // namespace

ShardedOptimizer::ShardedOptimizer(const std::vector<NamedParameter>& parameters,
                                   const optim::UpdateRule& rule, const Communicator& communicator,
                                   const ShardedOptimizerOptions& options)
    : ShardedOptimizer(parameters, rule, one_group(), communicator, options) {}

ShardedOptimizer::ShardedOptimizer(const std::vector<NamedParameter>& parameters,
                                   const optim::UpdateRule& rule,
                                   const std::vector<ParamGroupOptions>& groups,
                                   const Communicator& communicator,
                                   const ShardedOptimizerOptions& options)
    : NamedOptimizer(make(parameters, rule, groups, communicator)),
      shards_(std::make_unique<Shards>(communicator, options)) {
  std::vector<TensorSignature> signatures;
  for (const auto& [name, parameter] : parameters) {
    signatures.push_back({name, parameter.dtype(), parameter.shape()});
  }
  verify_signatures(communicator, "parameter", signatures);
  check_alike();
  cut();
}

ShardedOptimizer::~ShardedOptimizer() = default;
ShardedOptimizer::ShardedOptimizer(ShardedOptimizer&&) noexcept = default;
ShardedOptimizer& ShardedOptimizer::operator=(ShardedOptimizer&&) noexcept = default;

const Communicator& ShardedOptimizer::communicator() const noexcept { return shards_->ranks; }

// That all ranks have the same groups, and step them alike.
void ShardedOptimizer::check_alike() const {
  std::vector<NamedHash> entries;
  shards_->ranks.agree([&] {
    const StateDict state = state_dict();
    const StateDict groups{{"rule", state.at("rule")},
                           {"param_groups", state.at("param_groups")},
                           {"shared_replica", shards_->options.shared_replica}};
    entries = hash_entries(flatten(groups), {});
  });
  const std::string difference = comm::find_drift(shards_->ranks, entries);
  if (difference.empty()) return;
  throw_collective(
      {ErrorKind::state, fmt::format("the ranks have different optimizers: {}", difference)});
}

// Whose rule may have come to need whole parameters, or to need them no more.
void ShardedOptimizer::follow_groups() {
  std::size_t i = 0;
  bool changed = false;
  for (const ParamGroup& group : std::as_const(*this).param_groups()) {
    changed |= shards_->whole[i++] != steps_whole(group);
  }
  if (!changed) return;
  if (shards_->in_reduction) {
    throw_collective({ErrorKind::state,
                      "a param group has come to step whole parameters, which a StepInReduction "
                      "cannot do: it ends first"});
  }
  cut();
}

void ShardedOptimizer::cut(const std::vector<std::vector<const void*>>& blocks) {
  Shards& shards = *shards_;
  const Communicator& ranks = shards.ranks;
  if (ranks.size() == 1) return;
  std::vector<bool> whole;
  std::vector<ShardItem> plan_items;
  std::vector<Shards::Item> items;
  std::map<const void*, std::size_t> index_of;
  ShardPlan plan;
  ranks.agree([&] {
    std::map<const void*, bool> whole_of;
    for (const ParamGroup& group : param_groups()) {
      whole.push_back(steps_whole(group));
      for (const NamedParameter& named : group.parameters()) {
        whole_of[named.parameter.identity()] = whole.back();
      }
    }
    const std::vector<NamedParameter> known = named_parameters();
    for (auto named = known.rbegin(); named != known.rend(); ++named) {
      const Parameter& parameter = named->parameter;
      const auto member = whole_of.find(parameter.identity());
      if (member == whole_of.end()) continue;
      index_of[parameter.identity()] = items.size();
      plan_items.push_back({parameter.dtype(), parameter.size(), member->second});
      items.push_back({parameter, {}});
    }
    std::vector<std::vector<std::size_t>> items_of_blocks;
    for (const std::vector<const void*>& block : blocks) {
      std::vector<std::size_t>& of_block = items_of_blocks.emplace_back();
      for (const void* identity : block) of_block.push_back(index_of.at(identity));
    }
    plan = ShardPlan(plan_items, ranks.size(), items_of_blocks);
  });

  const auto share_of = [&](const Parameter& parameter) {
    const ShardPlan::Share share = plan.share(index_of.at(parameter.identity()), ranks.rank());
    return Share{share.begin, share.size};
  };
  // Every rank puts the whole slot together, from those who have had it.
  const auto move = [&](MovingSlots& moving) {
    const Parameter& parameter = moving.parameter.parameter;
    const std::size_t before = shards.index_of.at(parameter.identity());
    for (Tensor* numbers : moving.numbers) {
      Tensor slot;
      ranks.agree([&] { slot = Tensor::empty({parameter.size()}, parameter.dtype()); });
      for (int rank = 0; rank < ranks.size(); ++rank) {
        const ShardPlan::Share share = shards.plan.share(before, rank);
        Tensor part = slot.window(share.begin, {share.size});
        if (rank == ranks.rank()) part.copy_from(*numbers);
        ranks.broadcast_bytes(part.raw(), part.bytes(), rank);
      }
      const Share now = share_of(parameter);
      ranks.agree([&] { *numbers = slot.window(now.begin, {now.size}).clone(); });
    }
  };
  set_shares(share_of, move);
  shards.memory.emplace(ranks, plan.bytes(), shards.options.shared_replica);
  shards.plan = std::move(plan);
  shards.items = std::move(items);
  shards.index_of = std::move(index_of);
  shards.whole = std::move(whole);
  shards.ranges = shards.plan.ranges();
  for (std::size_t i = 0; i < shards.items.size(); ++i) {
    const Tensor& value = shards.items[i].parameter.value();
    shards.items[i].place =
        Tensor::of(shards.memory->node().owner(), shards.at(i), value.shape(), value.dtype());
  }
}

void ShardedOptimizer::add_param_group(const ParamGroupOptions& options) {
  bool added = false;
  try {
    shards_->ranks.agree([&] {
      if (shards_->in_reduction) {
        throw StateError("a param group is added while a StepInReduction steps the others");
      }
      NamedOptimizer::add_param_group(options);
      added = true;
    });
    check_alike();
    cut();
  } catch (...) {
    if (added) remove_last_group();
    throw;
  }
}

// Moves values to the memory of this optimizer, where another owner has moved them away.
void ShardedOptimizer::settle_values() {
  Shards& shards = *shards_;
  const bool common = shards.memory->one_per_node();
  const auto settle = [&](bool copies) {
    bool moved = false;
    for (Shards::Item& item : shards.items) {
      const Tensor& value = std::as_const(item.parameter).value();
      if (value.borrowed() || value.raw() == std::as_const(item.place).raw()) continue;
      item.parameter.rebind_value(item.place, copies);
      moved = true;
    }
    if (moved) memory_pool::give_back();  // where they were
  };
  if (!common) return settle(true);
  // All read until they come here, and the first of a node has the values of all.
  shards.ranks.barrier();
  const bool first = shards.memory->node().placement().node_rank == 0;
  if (first) settle(true);
  shards.ranks.barrier();
  if (!first) settle(false);
}

void ShardedOptimizer::agree(const std::function<void()>& work) const {
  shards_->ranks.agree(work);
}

bool ShardedOptimizer::update(double gradient_scale) {
  Shards& shards = *shards_;
  if (!shards.memory) return NamedOptimizer::update(gradient_scale);
  follow_groups();
  settle_values();
  bool any = false;
  shards.ranks.agree([&] {
    any = NamedOptimizer::update(gradient_scale);
    for (std::size_t i = 0; i < shards.items.size(); ++i) shards.put_borrowed(i);
  });
  shards.memory->gather(shards.ranges);
  for (std::size_t i = 0; i < shards.items.size(); ++i) shards.take_borrowed(i);
  return any;
}

void ShardedOptimizer::update(const Parameter& parameter, double gradient_scale) {
  Shards& shards = *shards_;
  if (!shards.memory) return NamedOptimizer::update(parameter, gradient_scale);
  follow_groups();
  settle_values();
  const std::size_t index = shards.index_of.at(parameter.identity());
  shards.ranks.agree([&] {
    NamedOptimizer::update(parameter, gradient_scale);
    shards.put_borrowed(index);
  });
  shards.memory->gather(shards.plan.ranges(index));
  shards.take_borrowed(index);
}

StateDict ShardedOptimizer::gather_state_dict(int root) const {
  const Shards& shards = *shards_;
  const Communicator& ranks = shards.ranks;
  const bool is_root = ranks.rank() == root;
  StateDict state;
  std::vector<std::span<const std::byte>> own;
  struct Part {
    std::size_t item;
    Tensor slot;
  };
  std::vector<Part> parts;
  ranks.agree([&] {
    state = state_dict();
    std::map<std::string, std::size_t> item_of;
    for (const NamedParameter& named : named_parameters()) {
      const auto item = shards.index_of.find(named.parameter.identity());
      if (item != shards.index_of.end()) item_of.emplace(named.name, item->second);
    }
    for (auto& [name, slots] : state["state"].as_dict()) {
      for (auto& [slot, value] : slots.as_dict()) {
        const auto* part = std::get_if<TensorPart>(&value.variant());
        if (part == nullptr) continue;
        const Tensor& numbers = part->numbers;
        own.push_back({static_cast<const std::byte*>(numbers.raw()), numbers.bytes()});
        if (!is_root) continue;
        Tensor whole = Tensor::empty(part->shape, numbers.dtype());
        parts.push_back({item_of.at(name), whole});
        std::memcpy(static_cast<std::byte*>(whole.raw()) +
                        static_cast<std::size_t>(part->begin) * item_size(numbers.dtype()),
                    numbers.raw(), numbers.bytes());
        value = std::move(whole);
      }
    }
  });
  if (!is_root) {
    comm::serve(ranks, root, own);
    return {};
  }
  comm::Pull pull(ranks);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    Tensor& slot = parts[i].slot;
    const std::size_t size = item_size(slot.dtype());
    for (int rank = 0; rank < ranks.size(); ++rank) {
      const ShardPlan::Share share = shards.plan.share(parts[i].item, rank);
      if (rank == root) continue;
      std::span<std::byte> bytes(
          static_cast<std::byte*>(slot.raw()) + static_cast<std::size_t>(share.begin) * size,
          static_cast<std::size_t>(share.size) * size);
      constexpr std::size_t most = std::size_t{1} << 30;
      for (std::size_t at = 0; at < bytes.size(); at += most) {
        MPI_Request request =
            pull.start(rank, i, at, bytes.subspan(at, std::min(most, bytes.size() - at)));
        try {
          pull.wait(request);
        } catch (const DeadlineError&) {
          static_cast<void>(new Tensor(slot));  // which MPI may still write to
          throw;
        }
      }
    }
  }
  pull.end();
  return state;
}

}  // namespace lockstep
