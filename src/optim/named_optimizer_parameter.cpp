// Steps of one parameter by itself.
#include <fmt/format.h>

#include <array>
#include <span>

#include "lockstep/core/error.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "tensor/dispatch.hpp"

namespace lockstep {

// Finds the entry of a parameter, with slots where they belong.
NamedOptimizer::Entry& NamedOptimizer::prepare(const Parameter& parameter) {
  const auto name = in_group_.find(parameter.identity());
  if (name == in_group_.end()) {
    throw NameError(fmt::format("no param group has the parameter of shape {}",
                                parameter.defined() ? to_string(parameter.shape()) : "undefined"));
  }
  const Entry& found = entry(name->second);
  if (!found.arranged || found.layout_epoch != parameter.layout_epoch() || slots_changed()) {
    // For all that may come, one by one, in the same backward.
    arrange_slots([](const Entry& entry) { return entry.parameter.requires_grad(); });
  }
  Entry& stepped = entry(name->second);
  Run& run = runs_[stepped.run];
  settle(run);
  run.uniform = false;
  return stepped;
}

void NamedOptimizer::update(const Parameter& parameter, double gradient_scale) {
  if (contains(parameter) && !(parameter.has_grad() && parameter.requires_grad())) return;
  Entry& stepped = prepare(parameter);
  const bool fresh = (!stepped.exists || !stepped.live) && start(stepped);
  ++stepped.steps;
  const auto index = static_cast<std::size_t>(&stepped - entries_.data());
  step_range(index, index + 1, stepped.steps, fresh, gradient_scale);
}

NamedOptimizer::PiecewiseStep NamedOptimizer::begin_step(const Parameter& parameter) {
  Entry& stepped = prepare(parameter);
  PiecewiseStep step{.entry = &index_.at(*stepped.name),
                     .scalars = stepped.scalars,
                     .fresh = (!stepped.exists || !stepped.live) && start(stepped)};
  ++stepped.steps;
  return step;
}

void NamedOptimizer::step_piece(const PiecewiseStep& step, std::int64_t begin,
                                std::span<const std::byte> gradient, double gradient_scale) {
  Entry& entry = entries_[*step.entry];
  const Group& group = groups_[entry.group];
  // Each piece moves the scalars on as the whole would.
  std::array<double, optim::UpdateRule::max_scalars> scalars = step.scalars;
  dispatch_floating(entry.parameter.dtype(), [&]<class T>() {
    const std::size_t size = gradient.size() / sizeof(T);
    std::array<std::span<T>, optim::UpdateRule::max_slots> slots;
    for (std::size_t i = 0; i < group.slots.size(); ++i) {
      slots[i] = {entry.slots[i].numbers.data<T>() + (begin - entry.share.begin), size};
    }
    group.rule->update(
        optim::UpdateRange<T>{.value = {entry.parameter.mutable_value().data<T>() + begin, size},
                              .gradient = {reinterpret_cast<const T*>(gradient.data()), size},
                              .slots = std::span(slots).first(group.slots.size()),
                              .scalars = std::span(scalars).first(group.rule->scalars().size()),
                              .fresh = step.fresh,
                              .step = entry.steps,
                              .gradient_scale = gradient_scale});
  });
}

void NamedOptimizer::end_step(const PiecewiseStep& step) {
  Entry& entry = entries_[*step.entry];
  const Group& group = groups_[entry.group];
  const std::size_t scalars = group.rule->scalars().size();
  if (scalars == 0) return;
  dispatch_floating(entry.parameter.dtype(), [&]<class T>() {
    std::array<std::span<T>, optim::UpdateRule::max_slots> none;
    group.rule->update(optim::UpdateRange<T>{.value = {},
                                             .gradient = {},
                                             .slots = std::span(none).first(group.slots.size()),
                                             .scalars = std::span(entry.scalars).first(scalars),
                                             .fresh = step.fresh,
                                             .step = entry.steps});
  });
}

}  // namespace lockstep
