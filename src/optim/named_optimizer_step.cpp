#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <span>
#include <utility>

#include "autograd/state.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/tensor/memory_pool.hpp"
#include "optim/clip.hpp"
#include "tensor/dispatch.hpp"

namespace lockstep {

using autograd::VariableState;

namespace {

const std::byte* address(const Tensor& tensor) {
  return static_cast<const std::byte*>(tensor.raw());
}

// Whether `next` lies where the padding of `tensor` ends.
bool follows(const Tensor& tensor, const Tensor& next) {
  return tensor.defined() && next.defined() &&
         address(tensor) +
                 static_cast<std::size_t>(tensor.padded_size()) * item_size(tensor.dtype()) ==
             address(next);
}

Tensor window(const Tensor& tensor, std::int64_t begin, std::int64_t size) {
  return tensor.defined() ? tensor.window(begin, {size}) : Tensor();
}

VariableState& state_of(const Parameter& parameter) { return *VariableState::of(parameter); }

bool steps_now(const autograd::GradientFlags& flags) {
  return flags.has_gradient && flags.requires_grad;
}

}  // namespace

bool NamedOptimizer::slots_changed() const {
  return std::any_of(groups_.begin(), groups_.end(), [](const Group& group) {
    const auto slots = group.rule->slots();
    return !std::equal(slots.begin(), slots.end(), group.slots.begin(), group.slots.end());
  });
}

Shape NamedOptimizer::slot_shape(const Entry& entry) const {
  return is_shared_ ? Shape{entry.share.size} : entry.parameter.shape();
}

// As Tensor::padded_size(), of a slot.
std::int64_t NamedOptimizer::padded_size(const Entry& entry) {
  return window(entry.parameter.value(), entry.share.begin, entry.share.size).padded_size();
}

// Gives the wanted entries, and all that have state, the slots of their rule, in an order in memory
// as the values have: where values are neighbours, so are their slots, and one pass updates all of
// them. Slots that the rule has no use for any more are kept.
void NamedOptimizer::arrange_slots(const std::function<bool(const Entry&)>& wanted) {
  for (const Group& group : groups_) check_sizes(*group.rule);
  settle_all();
  std::vector<std::size_t> order(entries_.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [this](std::size_t i, std::size_t j) {
    const Entry &a = entries_[i], &b = entries_[j];
    return a.group != b.group
               ? a.group < b.group
               : std::less<>()(address(a.parameter.value()), address(b.parameter.value()));
  });

  std::vector<std::vector<Slot>> arranged(entries_.size());
  std::size_t most = 0;
  for (const std::size_t i : order) {
    const Entry& entry = entries_[i];
    if (!entry.exists && !wanted(entry)) continue;
    for (const std::string_view name : groups_[entry.group].rule->slots()) {
      arranged[i].push_back({.name = std::string(name), .numbers = {}});
    }
    for (const Slot& old : entry.slots) {
      const auto same = [&old](const Slot& slot) { return slot.name == old.name; };
      auto slot = std::find_if(arranged[i].begin(), arranged[i].end(), same);
      if (slot == arranged[i].end() && !old.live) continue;
      if (slot == arranged[i].end())
        slot = arranged[i].insert(slot, {.name = old.name, .numbers = {}});
      slot->live = old.live;
      if (old.live) slot->numbers = old.numbers;
    }
    most = std::max(most, arranged[i].size());
  }

  std::vector<Tensor> memory;
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (std::size_t slot = 0; slot < most; ++slot) {
      const auto has_slot = [&](std::size_t i) {
        return entries_[i].parameter.dtype() == dtype && slot < arranged[i].size();
      };
      std::int64_t total = 0;
      for (const std::size_t i : order) {
        if (has_slot(i)) total += padded_size(entries_[i]);
      }
      memory.push_back(Tensor::zeros({total}, dtype));
      std::int64_t offset = 0;
      for (const std::size_t i : order) {
        if (!has_slot(i)) continue;
        Tensor window = memory.back().window(offset, slot_shape(entries_[i]));
        Tensor& numbers = arranged[i][slot].numbers;
        if (numbers.defined()) window.copy_from(numbers);
        numbers = std::move(window);
        offset += padded_size(entries_[i]);
      }
    }
  }

  std::vector<std::vector<std::string>> names;
  for (const Group& group : groups_) {
    names.emplace_back(group.rule->slots().begin(), group.rule->slots().end());
  }
  std::vector<Entry> entries;
  entries.reserve(entries_.size());

  // From here on nothing fails.
  for (std::size_t g = 0; g < groups_.size(); ++g) groups_[g].slots = std::move(names[g]);
  for (const std::size_t i : order) {
    Entry& entry = entries.emplace_back(std::move(entries_[i]));
    index_.find(*entry.name)->second = entries.size() - 1;
    if (!entry.exists && arranged[i].empty() && !groups_[entry.group].slots.empty()) {
      entry.arranged = false;
      entry.slots.clear();
      continue;
    }
    entry.slots = std::move(arranged[i]);
    entry.arranged = true;
    entry.layout_epoch = state_of(entry.parameter).layout_epoch;
    const std::size_t used = groups_[entry.group].slots.size();
    entry.live =
        std::all_of(entry.slots.begin(), entry.slots.begin() + static_cast<std::ptrdiff_t>(used),
                    [](const Slot& slot) { return slot.live; });
  }
  entries_ = std::move(entries);
  slot_memory_ = std::move(memory);
  find_runs();
  memory_pool::give_back();  // where slots were
}

// Whether an entry can be in the run of the one before, but for where its memory is. Only in a layout that
// someone owns is the padding between two parameters nobody else's; what lies between borrowed ones
// is the caller's.
bool NamedOptimizer::is_next(const Entry& before, const Entry& entry) {
  const Parameter &a = before.parameter, &b = entry.parameter;
  const autograd::ParameterState &owned_a = *state_of(a).parameter,
                                 &owned_b = *state_of(b).parameter;
  return before.group == entry.group && before.arranged && entry.arranged &&
         a.dtype() == b.dtype() && owned_a.table != nullptr && owned_a.table == owned_b.table &&
         owned_a.index + 1 == owned_b.index && !a.value().borrowed() && !b.value().borrowed();
}

// Whether all memory of an entry's share lies where that of the one before ends.
bool NamedOptimizer::continues(const Entry& before, const Entry& entry) const {
  const auto follows_in = [&](const Tensor& a, const Tensor& b) {
    return follows(window(a, before.share.begin, before.share.size),
                   window(b, entry.share.begin, entry.share.size));
  };
  const Parameter &a = before.parameter, &b = entry.parameter;
  if (!follows_in(a.value(), b.value()) ||
      !follows_in(state_of(a).gradient, state_of(b).gradient)) {
    return false;
  }
  for (std::size_t i = 0; i < groups_[entry.group].slots.size(); ++i) {
    if (!follows(before.slots[i].numbers, entry.slots[i].numbers)) return false;
  }
  return true;
}

void NamedOptimizer::find_runs() {
  runs_.clear();
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    Entry& entry = entries_[i];
    const bool filled = entry.share.size > 0;
    // Those with a share are side by side in a run, which others begin and end.
    if (i == 0 || !is_next(entries_[i - 1], entry) ||
        (filled && runs_.back().has_share() &&
         (runs_.back().last_filled + 1 != i || !continues(entries_[i - 1], entry)))) {
      Run& run = runs_.emplace_back();
      run.begin = i;
      const autograd::ParameterState& owned = *state_of(entry.parameter).parameter;
      if (entry.arranged && owned.table != nullptr) {
        run.table = owned.table;
        run.first_flag = owned.index;
        run.layout_epoch = owned.table->layout_epoch;
      }
    }
    entry.run = runs_.size() - 1;
    Run& run = runs_.back();
    run.end = i + 1;
    if (!filled) continue;
    if (!run.has_share()) run.first_filled = i;
    run.last_filled = i;
  }
}

// Brings the entries of a run up to date.
void NamedOptimizer::settle(Run& run) {
  if (run.ahead == 0) return;
  for (std::size_t i = run.begin; i < run.end; ++i) {
    entries_[i].steps += run.ahead;
    entries_[i].scalars = entries_[run.begin].scalars;
  }
  run.ahead = 0;
}

void NamedOptimizer::settle_all() {
  for (Run& run : runs_) settle(run);
}

std::int64_t NamedOptimizer::steps_of(const Entry& entry) const {
  return entry.steps + runs_[entry.run].ahead;
}

double NamedOptimizer::scalar_of(const Entry& entry, std::size_t scalar) const {
  const Run& run = runs_[entry.run];
  return (run.ahead > 0 ? entries_[run.begin] : entry).scalars[scalar];
}

// Makes all slots of the rule mean something; returns whether none did.
bool NamedOptimizer::start(Entry& entry) {
  const Group& group = groups_[entry.group];
  std::size_t started = 0;
  for (std::size_t i = 0; i < group.slots.size(); ++i) {
    Slot& slot = entry.slots[i];
    if (std::exchange(slot.live, true)) continue;
    slot.numbers.fill(group.rule->initial_value(i));
    ++started;
  }
  entry.live = true;
  entry.exists = true;
  return started > 0 && started == group.slots.size();
}

bool NamedOptimizer::layout_changed() const {
  constexpr std::size_t ahead = 8;  // entries; hides the latency of cache misses
  for (std::size_t i = 0; i < runs_.size(); ++i) {
    const Run& run = runs_[i];
    if (run.table != nullptr) {
      if (run.layout_epoch != run.table->layout_epoch) return true;
      continue;
    }
    if (run.begin + ahead < entries_.size()) {
      __builtin_prefetch(entries_[run.begin + ahead].parameter.identity());
    }
    const Entry& entry = entries_[run.begin];
    const VariableState& state = state_of(entry.parameter);
    if (steps_now(*state.flags) && (!entry.arranged || entry.layout_epoch != state.layout_epoch)) {
      return true;
    }
  }
  return false;
}

// One call of the rule for neighbours in a run that have everything alike, for their scalars even where this
// optimizer has no share of them.
void NamedOptimizer::step_range(std::size_t begin, std::size_t end, std::int64_t step, bool fresh,
                                double gradient_scale) {
  Entry& entry = entries_[begin];
  const Group& group = groups_[entry.group];
  const Run& run = runs_[entry.run];
  const bool has_share = run.has_share() && run.first_filled < end && run.last_filled >= begin;
  Entry& first = entries_[has_share ? std::max(begin, run.first_filled) : begin];
  Entry& last = entries_[has_share ? std::min(end - 1, run.last_filled) : begin];
  dispatch_floating(entry.parameter.dtype(), [&]<class T>() {
    T* value = first.parameter.mutable_value().data<T>() + first.share.begin;
    const T* value_end = last.parameter.value().data<T>() + last.share.begin + last.share.size;
    const auto size = static_cast<std::size_t>(value_end - value);
    std::array<std::span<T>, optim::UpdateRule::max_slots> slots;
    for (std::size_t i = 0; i < group.slots.size(); ++i) {
      slots[i] = {first.slots[i].numbers.data<T>(), size};
    }
    group.rule->update(optim::UpdateRange<T>{
        .value = {value, size},
        .gradient = {first.parameter.grad().data<T>() + first.share.begin, size},
        .slots = std::span(slots).first(group.slots.size()),
        .scalars = std::span(entry.scalars).first(group.rule->scalars().size()),
        .fresh = fresh,
        .step = step,
        .gradient_scale = gradient_scale});
  });
}

// Those entries of a run that have a gradient, in as few ranges as they allow; whether there are any.
bool NamedOptimizer::step_entries(Run& run, double gradient_scale) {
  settle(run);
  std::size_t begin = run.begin, end = run.begin;  // a range that is not stepped yet
  bool fresh = false, any = false;
  const auto flush = [&] {
    if (begin == end) return;
    const Entry& first = entries_[begin];
    step_range(begin, end, first.steps, fresh, gradient_scale);
    for (std::size_t i = begin + 1; i < end; ++i) entries_[i].scalars = first.scalars;
    begin = end;
  };
  const bool whole = groups_[entries_[run.begin].group].rule->whole_parameters();
  for (std::size_t i = run.begin; i < run.end; ++i) {
    Entry& entry = entries_[i];
    if (!steps_now(*state_of(entry.parameter).flags)) continue;
    any = true;
    const bool starts = (!entry.exists || !entry.live) && start(entry);
    ++entry.steps;
    const Entry& first = entries_[begin];
    const bool joins =
        begin < end && end == i && !whole && starts == fresh && entry.steps == first.steps &&
        entry.scalars == first.scalars &&
        state_of(entry.parameter).flags->reduced == state_of(first.parameter).flags->reduced;
    if (!joins) {
      flush();
      begin = i;
      fresh = starts;
    }
    end = i + 1;
  }
  flush();
  const Entry& first = entries_[run.begin];
  run.uniform = std::all_of(entries_.begin() + static_cast<std::ptrdiff_t>(run.begin),
                            entries_.begin() + static_cast<std::ptrdiff_t>(run.end),
                            [&first](const Entry& entry) {
                              return entry.exists && entry.live && entry.steps == first.steps &&
                                     entry.scalars == first.scalars;
                            });
  return any;
}

bool NamedOptimizer::update(double gradient_scale) {
  if (slots_changed() || layout_changed()) {
    arrange_slots([](const Entry& entry) { return steps_now(*state_of(entry.parameter).flags); });
  }
  for (const Run& run : runs_) {
    if (run.table != nullptr && run.table->unreduced > 0) optim::throw_unreduced();
  }
  bool any = false;
  for (Run& run : runs_) {
    if (run.table != nullptr && run.uniform) {
      const auto* flags = run.table->flags.data() + run.first_flag;
      const bool all = std::all_of(flags, flags + (run.end - run.begin), [flags](const auto& one) {
        return steps_now(one) && one.reduced == flags->reduced;
      });
      const Entry& first = entries_[run.begin];
      if (all && !groups_[first.group].rule->whole_parameters()) {
        ++run.ahead;
        step_range(run.begin, run.end, first.steps + run.ahead, false, gradient_scale);
        any = true;
        continue;
      }
    }
    any |= step_entries(run, gradient_scale);
  }
  return any;
}

}  // namespace lockstep
