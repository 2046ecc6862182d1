#include "lockstep/autograd/parameter.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "autograd/state.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep {

using autograd::ParameterState;
using autograd::VariableState;

namespace {

ParameterState& parameter_state(const Parameter& parameter) {
  return *VariableState::of(parameter)->parameter;
}

}  // namespace

Parameter::Parameter(Tensor value) : Parameter(std::string(), std::move(value)) {}

Parameter::Parameter(std::string name, Tensor value) : Variable(std::move(value), true) {
  if (!this->value().defined()) throw StateError("a parameter needs a defined tensor");
  VariableState::of(*this)->parameter = std::make_unique<ParameterState>();
  parameter_state(*this).name = std::move(name);
}

const std::string& Parameter::name() const { return parameter_state(*this).name; }

Tensor& Parameter::mutable_value() { return VariableState::of(*this)->value; }

Tensor& Parameter::mutable_grad() {
  const auto& state = VariableState::of(*this);
  if (!state->gradient.defined()) {
    state->gradient = Tensor::empty(state->value.shape(), state->value.dtype());
  }
  if (!state->flags->has_gradient) {
    state->gradient.fill(0);
  } else if (state->flags->reduced) {
    state->gradient.copy_from(state->parameter->reduced);
  }
  state->flags->has_gradient = true;
  state->flags->reduced = false;
  return state->gradient;
}

void Parameter::zero_grad(bool set_to_none) {
  const auto& state = VariableState::of(*this);
  if (state->flags->unreduced) {
    throw StateError(
        "zero_grad() between a backward and the reduction of its gradients: finish() comes first, "
        "or "
        "discard(), which forgets them");
  }
  if (set_to_none) {
    state->flags->has_gradient = false;
  } else if (state->flags->has_gradient) {
    state->gradient.fill(0);
    state->flags->reduced = false;
  }
}

void Parameter::release_grad() {
  zero_grad();
  const auto& state = VariableState::of(*this);
  if (state->parameter->owner == nullptr) state->gradient = {};
}

void Parameter::set_requires_grad(bool requires_grad) {
  VariableState::of(*this)->flags->requires_grad = requires_grad;
}

std::int64_t Parameter::register_hook(Hook hook) {
  ParameterState& state = parameter_state(*this);
  state.hooks.emplace_back(state.next_hook, std::move(hook));
  return state.next_hook++;
}

std::int64_t Parameter::register_final_hook(Hook hook) {
  ParameterState& state = parameter_state(*this);
  state.final_hooks.emplace_back(state.next_hook, std::move(hook));
  if (state.table != nullptr) ++state.table->final_hooks;
  return state.next_hook++;
}

void Parameter::remove_hook(std::int64_t handle) {
  const auto has_handle = [handle](const auto& entry) { return entry.first == handle; };
  std::erase_if(parameter_state(*this).hooks, has_handle);
  ParameterState& state = parameter_state(*this);
  const std::size_t removed = std::erase_if(state.final_hooks, has_handle);
  if (state.table != nullptr) state.table->final_hooks -= removed;
}

void Parameter::run_final_hooks() const {
  if (parameter_state(*this).final_hooks.empty()) return;
  const auto hooks = parameter_state(*this).final_hooks;  // a hook may remove itself
  for (const auto& [number, hook] : hooks) hook(*this);
}

void Parameter::rebind(Tensor value, Tensor gradient, autograd::GradientOwner* owner,
                       std::size_t index, const Tensor& reduced) {
  const auto& state = VariableState::of(*this);
  value.copy_from(state->value);
  if (gradient.defined()) {
    check_same(state->value, gradient, "rebind");
    if (state->flags->has_gradient) gradient.copy_from(grad());
  } else if (state->flags->has_gradient) {
    gradient = grad().clone();
  }
  state->value = std::move(value);
  state->gradient = std::move(gradient);
  ParameterState& parameter = *state->parameter;
  parameter.reduced = reduced;
  parameter.owner = owner;
  parameter.index = index;
  if (parameter.table != nullptr) {
    ++parameter.table->layout_epoch;
    parameter.table->final_hooks -= parameter.final_hooks.size();
  }
  autograd::GradientFlags flags = *state->flags;
  flags.reduced = flags.unreduced = false;
  const bool has_row = owner != nullptr && index < owner->table()->flags.size();
  state->flags = has_row ? &owner->table()->flags[index] : &state->own_flags;
  *state->flags = flags;
  parameter.table = has_row ? owner->table() : nullptr;
  if (has_row) owner->table()->final_hooks += parameter.final_hooks.size();
  ++state->layout_epoch;
}

void Parameter::rebind_value(Tensor value, bool copies) {
  const auto& state = VariableState::of(*this);
  check_same(state->value, value, "rebind_value");
  if (copies) value.copy_from(state->value);
  state->value = std::move(value);
  const ParameterState& parameter = *state->parameter;
  if (parameter.table != nullptr) ++parameter.table->layout_epoch;
  ++state->layout_epoch;
}

autograd::GradientOwner* Parameter::gradient_owner() const { return parameter_state(*this).owner; }

void Parameter::set_has_grad(bool has_grad) {
  VariableState::of(*this)->flags->has_gradient = has_grad;
  VariableState::of(*this)->flags->reduced = false;
}

std::uint64_t Parameter::layout_epoch() const { return VariableState::of(*this)->layout_epoch; }

NamedParameter::NamedParameter(std::string name, Parameter parameter)
    : name(std::move(name)), parameter(std::move(parameter)) {}

NamedParameter::NamedParameter(Parameter parameter)
    : name(parameter.name()), parameter(std::move(parameter)) {
  if (name.empty()) {
    throw NameError("the parameter has no name: give it one, or pass {name, parameter}");
  }
}

}  // namespace lockstep
