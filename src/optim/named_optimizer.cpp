#include "lockstep/optim/named_optimizer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <iterator>
#include <set>
#include <utility>

#include "lockstep/core/error.hpp"
#include "lockstep/core/log.hpp"
#include "tensor/dispatch.hpp"

namespace lockstep {
namespace {

const std::byte* address(const Tensor& tensor) {
  return static_cast<const std::byte*>(tensor.raw());
}

}  // namespace

NamedOptimizer::NamedOptimizer(std::vector<NamedParameter> parameters,
                               const optim::UpdateRule& rule)
    : NamedOptimizer(parameters, rule, [&] {
        ParamGroupOptions all;
        for (const NamedParameter& named : parameters) all.params.push_back(named.parameter);
        return std::vector{all};
      }()) {}

NamedOptimizer::NamedOptimizer(std::vector<NamedParameter> parameters,
                               const optim::UpdateRule& rule,
                               const std::vector<ParamGroupOptions>& groups)
    : defaults_(rule.clone()) {
  if (parameters.empty()) throw OptionError("the optimizer got no parameters");
  std::set<std::string> names;
  for (const NamedParameter& named : parameters) {
    if (!named.parameter.defined()) {
      throw StateError(fmt::format("parameter '{}' is undefined", named.name));
    }
    if (!names.insert(named.name).second) {
      throw NameError(fmt::format("two parameters are called '{}'", named.name));
    }
    const auto [known, added] = names_.emplace(named.parameter.identity(), named.name);
    if (!added) {
      throw NameError(
          fmt::format("'{}' and '{}' are the same parameter", known->second, named.name));
    }
  }
  for (const ParamGroupOptions& group : groups) add_group(group);
  if (entries_.size() < names_.size()) {
    log(LogLevel::warning,
        fmt::format("the param groups have {} of the {} parameters; the others stay as they are",
                    entries_.size(), names_.size()));
  }
}

void NamedOptimizer::add_param_group(const ParamGroupOptions& options) { add_group(options); }

void NamedOptimizer::add_group(const ParamGroupOptions& options) {
  if (options.params.empty()) throw OptionError("the param group has no parameters");
  std::vector<NamedParameter> members;
  std::set<std::string> added;
  for (const Parameter& parameter : options.params) {
    const auto known = names_.find(parameter.identity());
    if (known == names_.end()) {
      throw NameError(
          fmt::format("some parameters are not in the module: one of shape {}",
                      parameter.defined() ? to_string(parameter.shape()) : "undefined"));
    }
    const std::string& name = known->second;
    if (entries_.contains(name) || !added.insert(name).second) {
      throw NameError(fmt::format("parameter '{}' appears in more than one param group", name));
    }
    members.emplace_back(name, parameter);
  }
  auto rule = defaults_->clone();
  StateDict fields = options.fields;
  if (options.lr) fields["lr"] = *options.lr;
  rule->set(fields);

  groups_.emplace_back(members, std::move(rule));
  for (NamedParameter& member : members) {
    Entry& entry = entries_[member.name];
    entry.parameter = member.parameter;
    entry.group = &groups_.back();
    order_.push_back(&entry);
  }
}

bool NamedOptimizer::keeps_state() const {
  return std::any_of(groups_.begin(), groups_.end(), [](const ParamGroup& group) {
    return group.rule().counts_steps() || !group.rule().slots().empty();
  });
}

// Gives the wanted entries, and all that have state, slots that lie in memory as the values do:
// where values are neighbours, so are their slots, and one pass updates all of them.
void NamedOptimizer::arrange_slots(const std::vector<Entry*>& wanted) {
  std::vector<Entry*> order;
  for (const ParamGroup& group : groups_) {
    const auto first = order.size();
    for (const NamedParameter& member : group.parameters()) {
      order.push_back(&entries_.at(member.name));
    }
    std::sort(order.begin() + static_cast<std::ptrdiff_t>(first), order.end(),
              [](const Entry* a, const Entry* b) {
                return std::less<>()(address(a->parameter.value()), address(b->parameter.value()));
              });
  }
  const std::set<const Entry*> needed(wanted.begin(), wanted.end());
  const auto slots_of = [&needed](const Entry& entry) {
    const bool kept = entry.exists || needed.contains(&entry);
    return kept ? std::max(entry.group->rule().slots().size(), entry.live_slots) : 0;
  };

  std::vector<Tensor> memory;
  std::map<const Entry*, std::vector<Tensor>> arranged;
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (std::size_t slot = 0;; ++slot) {
      std::int64_t total = 0;
      bool any = false;
      for (const Entry* entry : order) {
        if (entry->parameter.dtype() != dtype || slots_of(*entry) <= slot) continue;
        total += entry->parameter.value().padded_size();
        any = true;
      }
      if (!any) break;
      memory.push_back(Tensor::zeros({total}, dtype));
      std::int64_t offset = 0;
      for (const Entry* entry : order) {
        if (entry->parameter.dtype() != dtype || slots_of(*entry) <= slot) continue;
        Tensor window = memory.back().window(offset, entry->parameter.shape());
        if (slot < entry->live_slots) window.copy_from(entry->slots[slot]);
        arranged[entry].push_back(std::move(window));
        offset += entry->parameter.value().padded_size();
      }
    }
  }

  for (Entry* entry : order) {
    entry->slots = std::move(arranged[entry]);
    entry->layout_epoch = entry->parameter.layout_epoch();
  }
  order_ = std::move(order);
  slot_memory_ = std::move(memory);
}

// Parameters of one group and dtype, side by side in memory, that take one pass of the update rule.
class NamedOptimizer::Run {
 public:
  void add(const Entry& entry, bool fresh) {
    if (!continues(entry, fresh)) {
      update();
      first_ = &entry;
      fresh_ = fresh;
      end_ = 0;
    }
    const Tensor& value = entry.parameter.value();
    size_ = end_ + value.size();
    end_ += value.padded_size();
  }

  void update() {
    if (first_ == nullptr) return;
    dispatch_floating(first_->parameter.dtype(), [&]<class T>() { update_as<T>(); });
    first_ = nullptr;
  }

 private:
  bool continues(const Entry& entry, bool fresh) const {
    // Only in a layout that someone owns is the padding between two parameters nobody else's; what
    // lies between borrowed ones is the caller's.
    if (first_ == nullptr || entry.group != first_->group || entry.steps != first_->steps ||
        fresh != fresh_ || entry.parameter.dtype() != first_->parameter.dtype() ||
        entry.parameter.value().borrowed() || first_->parameter.value().borrowed() ||
        entry.parameter.gradient_owner() == nullptr ||
        entry.parameter.gradient_owner() != first_->parameter.gradient_owner()) {
      return false;
    }
    const auto follows = [this](const Tensor& start, const Tensor& next) {
      return address(start) + static_cast<std::size_t>(end_) * item_size(start.dtype()) ==
             address(next);
    };
    if (!follows(first_->parameter.value(), entry.parameter.value()) ||
        !follows(first_->parameter.grad(), entry.parameter.grad())) {
      return false;
    }
    const std::size_t slots = entry.group->rule().slots().size();
    for (std::size_t i = 0; i < slots; ++i) {
      if (!follows(first_->slots[i], entry.slots[i])) return false;
    }
    return true;
  }

  template <class T>
  void update_as() {
    const auto span_at = [this](const Tensor& start) {
      return std::span<T>(const_cast<T*>(start.data<T>()), static_cast<std::size_t>(size_));
    };
    std::array<std::span<T>, optim::UpdateRule::max_slots> slots;
    const std::size_t count = first_->group->rule().slots().size();
    for (std::size_t i = 0; i < count; ++i) slots[i] = span_at(first_->slots[i]);
    first_->group->rule().update(
        optim::UpdateRange<T>{.value = span_at(first_->parameter.value()),
                              .gradient = span_at(first_->parameter.grad()),
                              .slots = std::span(slots).first(count),
                              .fresh = fresh_,
                              .step = first_->steps});
  }

  const Entry* first_ = nullptr;
  bool fresh_ = false;
  std::int64_t size_ = 0;  // elements up to the end of the last parameter
  std::int64_t end_ = 0;   // and up to the boundary after it
};

void NamedOptimizer::step() {
  const auto steps_now = [](const Entry* entry) {
    return entry->parameter.has_grad() && entry->parameter.requires_grad();
  };
  const bool stale = std::any_of(order_.begin(), order_.end(), [&](const Entry* entry) {
    return steps_now(entry) && (entry->slots.size() < entry->group->rule().slots().size() ||
                                entry->layout_epoch != entry->parameter.layout_epoch());
  });
  if (stale) {
    std::vector<Entry*> wanted;
    std::copy_if(order_.begin(), order_.end(), std::back_inserter(wanted), steps_now);
    arrange_slots(wanted);
  }
  Run run;
  for (Entry* entry : order_) {
    if (!steps_now(entry)) continue;
    const std::size_t slots = entry->group->rule().slots().size();
    const bool fresh = entry->live_slots < slots;
    // Memory of state that a restore() has made absent still has the old numbers.
    for (std::size_t i = entry->live_slots; i < slots; ++i) entry->slots[i].fill(0);
    entry->exists = true;
    entry->live_slots = std::max(entry->live_slots, slots);
    ++entry->steps;
    run.add(*entry, fresh);
  }
  run.update();
}

void NamedOptimizer::zero_grad(bool set_to_none) {
  for (Entry* entry : order_) entry->parameter.zero_grad(set_to_none);
}

}  // namespace lockstep
