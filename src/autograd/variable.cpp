#include "lockstep/autograd/variable.hpp"

#include <fmt/format.h>

#include <utility>

#include "autograd/state.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/tensor/memory_pool.hpp"

namespace lockstep {

using autograd::VariableState;

Variable::Variable(Tensor value, bool requires_grad) {
  if (requires_grad && !is_floating(value.dtype())) {
    throw DTypeError(
        fmt::format("only f32 and f64 can have a gradient, found {}", to_string(value.dtype())));
  }
  state_ = std::allocate_shared<VariableState>(memory_pool::Allocator<VariableState>());
  state_->value = std::move(value);
  state_->flags->requires_grad = requires_grad;
}

const Tensor& Variable::value() const { return VariableState::of(*this)->value; }

bool Variable::requires_grad() const { return VariableState::of(*this)->flags->requires_grad; }

bool Variable::is_leaf() const { return VariableState::of(*this)->producer == nullptr; }

bool Variable::has_grad() const { return VariableState::of(*this)->flags->has_gradient; }

const Tensor& Variable::grad() const {
  const auto& state = VariableState::of(*this);
  if (!state->flags->has_gradient) {
    throw StateError("the variable has no gradient: no backward has reached it since zero_grad()");
  }
  return state->flags->reduced ? state->parameter->reduced : state->gradient;
}

Variable Variable::detach() const { return Variable(value()); }

namespace {

bool& recording() {
  thread_local bool enabled = true;
  return enabled;
}

}  // namespace

NoGrad::NoGrad() : previous_(std::exchange(recording(), false)) {}
NoGrad::~NoGrad() { recording() = previous_; }

namespace autograd {

const std::shared_ptr<VariableState>& VariableState::of(const Variable& variable) {
  if (!variable.defined()) throw StateError("the variable is undefined");
  return variable.state_;
}

std::shared_ptr<VariableState> VariableState::take(Variable&& variable) noexcept {
  return std::move(variable.state_);
}

Parameter VariableState::wrap(std::shared_ptr<VariableState> parameter) {
  Parameter handle;
  handle.state_ = std::move(parameter);
  return handle;
}

bool is_recorded(const Variable& x) {
  return recording() && VariableState::of(x)->flags->requires_grad;
}

Variable record(Tensor value, std::vector<Variable> inputs, Backward backward) {
  Variable result(std::move(value));
  if (!recording()) return result;
  auto operation = std::allocate_shared<Operation>(memory_pool::Allocator<Operation>());
  operation->inputs.reserve(inputs.size());
  bool needed = false;
  for (Variable& input : inputs) {
    const bool wanted = VariableState::of(input)->flags->requires_grad;
    needed |= wanted;
    operation->inputs.push_back(wanted ? VariableState::take(std::move(input)) : nullptr);
  }
  if (!needed) return result;
  operation->backward = std::move(backward);
  const auto& state = VariableState::of(result);
  state->flags->requires_grad = true;
  state->producer = std::move(operation);
  return result;
}

Operation::~Operation() {
  // A long chain of operations would destroy itself by recursion, one frame an operation: take it
  // apart here instead.
  std::vector<std::shared_ptr<VariableState>> doomed = std::move(inputs);
  while (!doomed.empty()) {
    const std::shared_ptr<VariableState> variable = std::move(doomed.back());
    doomed.pop_back();
    if (variable == nullptr || variable.use_count() > 1 || variable->producer == nullptr ||
        variable->producer.use_count() > 1) {
      continue;
    }
    for (auto& input : variable->producer->inputs) doomed.push_back(std::move(input));
    variable->producer->inputs.clear();
  }
}

}  // namespace autograd
}  // namespace lockstep
