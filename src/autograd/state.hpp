#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lockstep/autograd/parameter.hpp"
#include "lockstep/autograd/variable.hpp"

namespace lockstep::autograd {

// As what it refers to is.
struct [[gnu::visibility("hidden")]] Operation {
  ~Operation();

  std::vector<std::shared_ptr<VariableState>> inputs;  // nullptr where no gradient is needed
  Backward backward;                                   // empty once it has been used up
};

/// What only a parameter has.
struct ParameterState {
  std::string name;
  using Hooks = std::vector<std::pair<std::int64_t, Parameter::Hook>>;

  Hooks hooks;
  Hooks final_hooks;
  bool steps_in_backward = false;  // one of the final hooks is an optimizer's step
  std::int64_t next_hook = 0;
  GradientOwner* owner = nullptr;
  std::size_t index = 0;
  std::shared_ptr<GradientTable> table;  // the owner's, where it has one
  Tensor reduced;                        // read instead of the storage while the flag says so
};

struct VariableState : std::enable_shared_from_this<VariableState> {
  VariableState() = default;
  VariableState(const VariableState&) = delete;
  VariableState& operator=(const VariableState&) = delete;

  // First, and so in one cache line, what an optimizer asks of each parameter in each step.
  GradientFlags own_flags;
  GradientFlags* flags = &own_flags;  // or in the table of the gradient's owner
  bool gradient_aliased = false;      // storage is shared with another variable's gradient
  std::uint64_t layout_epoch = 0;     // of a parameter

  Tensor value;
  Tensor gradient;  // storage, kept when the gradient is unset
  std::shared_ptr<Operation> producer;
  std::unique_ptr<ParameterState> parameter;

  // Scratch of a running backward.
  std::int64_t pending = 0;  // contributions still to come
  bool reached = false;      // a contribution has come

  static const std::shared_ptr<VariableState>& of(const Variable& variable);
  static std::shared_ptr<VariableState> take(Variable&& variable) noexcept;
  static Parameter wrap(std::shared_ptr<VariableState> parameter);
};

/// Whether record() would keep an operation on that.
bool is_recorded(const Variable& x);

}  // namespace lockstep::autograd
