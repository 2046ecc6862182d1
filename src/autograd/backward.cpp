#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "autograd/state.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/core/timeline.hpp"
#include "tensor/dispatch.hpp"
#include "tensor/kernels.hpp"

namespace lockstep {
namespace autograd {
namespace {

// Everything that a backward from `root` will reach, each once, with the number of contributions
// that it will get in `pending`.
std::vector<VariableState*> count_contributions(VariableState* root) {
  std::vector<VariableState*> reachable{root};
  root->pending = 1;
  for (std::size_t i = 0; i < reachable.size(); ++i) {
    const Operation* operation = reachable[i]->producer.get();
    if (operation == nullptr) continue;
    for (const auto& input : operation->inputs) {
      if (input != nullptr && input->pending++ == 0) reachable.push_back(input.get());
    }
  }
  return reachable;
}

void reset_scratch(const std::vector<VariableState*>& reachable) {
  for (VariableState* state : reachable) {
    state->pending = 0;
    state->reached = false;
    if (state->producer == nullptr) continue;
    state->flags->has_gradient = false;
    state->gradient = {};
    state->gradient_aliased = false;
  }
}

class BackwardPass {
 public:
  explicit BackwardPass(std::shared_ptr<VariableState> root, bool retain_graph)
      : root_(std::move(root)), retain_graph_(retain_graph) {}

  void run() {
    const std::vector<VariableState*> reachable = count_contributions(root_.get());
    // Variables that only the graph keeps alive must outlive the pass, which frees the graph.
    std::vector<std::shared_ptr<Operation>> keep_alive;
    std::vector<GradientOwner*> owners;
    for (VariableState* state : reachable) {
      if (state->producer != nullptr) {
        keep_alive.push_back(state->producer);
      } else if (state->parameter != nullptr && state->parameter->owner != nullptr &&
                 std::find(owners.begin(), owners.end(), state->parameter->owner) == owners.end()) {
        owners.push_back(state->parameter->owner);
      }
    }
    for (const auto& operation : keep_alive) {
      if (operation->backward) continue;
      reset_scratch(reachable);
      throw StateError(
          "backward through a graph that an earlier backward has used up: set retain_graph there "
          "to use it again");
    }
    try {
      GradientSlot(root_.get()).pass(Tensor::full(root_->value.shape(), 1, root_->value.dtype()));
      contributed(root_.get());
      while (!ready_.empty()) {
        VariableState* state = ready_.back();
        ready_.pop_back();
        differentiate(*state);
      }
    } catch (...) {
      reset_scratch(reachable);
      for (GradientOwner* owner : owners) owner->abandon();
      throw;
    }
    reset_scratch(reachable);
    for (auto owner = owners.begin(); owner != owners.end(); ++owner) {
      try {
        (*owner)->finish();
      } catch (...) {
        while (++owner != owners.end()) (*owner)->abandon();
        throw;
      }
    }
  }

 private:
  void contributed(VariableState* state) {
    if (--state->pending > 0) return;
    if (state->producer != nullptr) {
      ready_.push_back(state);
    } else if (state->parameter != nullptr && state->reached) {
      complete(state);
    }
  }

  void complete(VariableState* state) {
    ParameterState& parameter = *state->parameter;
    if (!parameter.hooks.empty()) {
      const auto hooks = parameter.hooks;  // a hook may remove itself
      const Parameter handle = VariableState::wrap(state->shared_from_this());
      for (const auto& [number, hook] : hooks) hook(handle);
    }
    if (parameter.owner != nullptr) {
      parameter.owner->complete(parameter.index);
    } else if (!parameter.final_hooks.empty()) {
      VariableState::wrap(state->shared_from_this()).run_final_hooks();
    }
  }

  void differentiate(VariableState& state) {
    Operation& operation = *state.producer;
    slots_.clear();
    for (const auto& input : operation.inputs) slots_.emplace_back(input.get());
    // An operation may leave out a gradient that is zero, and with it all that follows from it.
    if (state.flags->has_gradient) operation.backward(state.gradient, slots_);
    if (!retain_graph_) operation.backward = nullptr;
    state.gradient = {};
    state.flags->has_gradient = false;
    for (const auto& input : operation.inputs) {
      if (input != nullptr) contributed(input.get());
    }
  }

  std::shared_ptr<VariableState> root_;
  bool retain_graph_;
  std::vector<VariableState*> ready_;
  std::vector<GradientSlot> slots_;
};

}  // namespace

Tensor& GradientSlot::open(bool& accumulate) {
  VariableState& state = *input_;
  const bool first = !std::exchange(state.reached, true);
  if (first && state.parameter != nullptr && state.parameter->owner != nullptr) {
    accumulate = state.parameter->owner->open(state.parameter->index);
    state.flags->has_gradient = true;
    return state.gradient;
  }
  accumulate = std::exchange(state.flags->has_gradient, true);
  if (state.gradient_aliased) {
    state.gradient = accumulate ? state.gradient.clone() : Tensor();
    state.gradient_aliased = false;
  }
  if (!state.gradient.defined()) {
    state.gradient = Tensor::empty(state.value.shape(), state.value.dtype());
  }
  return state.gradient;
}

void GradientSlot::pass(const Tensor& value) {
  if (!wanted()) return;
  const Tensor shaped = value.reshape(input_->value.shape());
  check_same(input_->value, shaped, "the gradient of an operation's input");
  if (input_->producer != nullptr && !input_->flags->has_gradient) {
    input_->reached = true;
    input_->flags->has_gradient = true;
    input_->gradient = shaped;
    input_->gradient_aliased = true;
    return;
  }
  receive([&](Tensor& gradient, bool accumulate) {
    if (!accumulate) return gradient.copy_from(shaped);
    dispatch_kernel(gradient.dtype(), [&]<class T>() {
      kernels::add_scaled(gradient.size(), T{1}, shaped.data<T>(), gradient.data<T>());
    });
  });
}

}  // namespace autograd

void Variable::backward(const BackwardOptions& options) const {
  const timeline::Span span("backward");
  const auto& state = autograd::VariableState::of(*this);
  if (state->value.size() != 1) {
    throw StateError(fmt::format("backward starts from one number, found shape {}",
                                 to_string(state->value.shape())));
  }
  if (!state->flags->requires_grad) {
    throw StateError("backward from a variable that depends on nothing that requires a gradient");
  }
  autograd::BackwardPass(state, options.retain_graph).run();
}

}  // namespace lockstep
