#include <algorithm>
#include <string_view>
#include <utility>

#include "lockstep/optim/named_optimizer.hpp"

namespace lockstep {

StateValue NamedOptimizer::slot_value(const Entry& entry, const Tensor& numbers) const {
  if (!is_shared_) return numbers;
  return TensorPart{
      .shape = entry.parameter.shape(), .begin = entry.share.begin, .numbers = numbers};
}

StateDict NamedOptimizer::entry_state(const Entry& entry) const {
  const optim::UpdateRule& rule = *groups_[entry.group].rule;
  const auto slots = rule.slots();
  StateDict state;
  for (const Slot& slot : entry.slots) {
    const bool used = std::find(slots.begin(), slots.end(), slot.name) != slots.end();
    if (used && slot.live) state[slot.name] = slot_value(entry, slot.numbers);
  }
  if (!state.empty()) {
    // What the rule has come to need since the last step begins with its initial value.
    for (std::size_t i = 0; i < slots.size(); ++i) {
      if (state.contains(slots[i])) continue;
      const Tensor initial =
          Tensor::full(slot_shape(entry), rule.initial_value(i), entry.parameter.dtype());
      state[slots[i]] = slot_value(entry, initial);
    }
  }
  for (std::size_t i = 0; i < rule.scalars().size(); ++i) {
    state[rule.scalars()[i]] = scalar_of(entry, i);
  }
  if (rule.counts_steps()) state["step"] = steps_of(entry);
  return state;
}

StateDict NamedOptimizer::state_dict() const {
  StateDict states;
  for (const auto& [name, index] : index_) {
    if (!entries_[index].exists) continue;
    StateDict state = entry_state(entries_[index]);
    if (!state.empty()) states[name] = std::move(state);
  }
  StateList groups;
  for (const Group& group : groups_) groups.emplace_back(group.group.state_dict());
  StateDict state;  // not from a list, which would copy what it is given
  state["rule"] = defaults_->name();
  state["state"] = std::move(states);
  state["param_groups"] = std::move(groups);
  return state;
}

StateDict NamedOptimizer::wanted() const {
  StateDict state = state_dict();
  if (!is_shared_) return state;
  StateDict& states = state["state"].as_dict();
  for (const auto& [name, index] : index_) {
    const Entry& entry = entries_[index];
    const Tensor numbers =
        entry.parameter.value().window(entry.share.begin, {entry.share.size});  // of that dtype
    for (const std::string_view slot : groups_[entry.group].rule->slots()) {
      states[name].as_dict()[slot] = slot_value(entry, numbers);
    }
  }
  return state;
}

void NamedOptimizer::init_state() {
  for (Entry& entry : entries_) {
    if (entry.parameter.requires_grad() && !entry.parameter.has_grad()) {
      entry.parameter.mutable_grad();
    }
  }
  arrange_slots([](const Entry& entry) { return entry.parameter.requires_grad(); });
  for (Entry& entry : entries_) {
    if (entry.parameter.requires_grad() && !entry.exists) start(entry);
  }
}

}  // namespace lockstep
