#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "lockstep/state/state_dict.hpp"

// An optimizer's state under the names that docs/checkpoint_format.md gives it in a safetensors file.
namespace lockstep::checkpoint {

/// The metadata that has what is no number of an optimizer's state:
/// {"rule": …, "param_groups": [{"name": …, "params": […]}, …], "scalars": […]}.
inline constexpr const char* optimizer_key = "optimizer";

/// Whether a tensor is called "state.…" or "param_groups.…".
bool is_of_optimizer(std::string_view name);

/// NameError where a model, or another item, has a tensor of such a name.
void check_is_not_of_optimizer(const std::string& name);

struct FlatOptimizer {
  StateDict tensors;  ///< "state" and "param_groups"
  std::string metadata;
};

/// StateError for an optimizer that has more than slots and param groups; NameError for names that the
/// file could not tell apart.
FlatOptimizer flatten_optimizer(const StateDict& optimizer);

/// The optimizer's state dict from those of the tensors, by their full names, that are its. StateError
/// or NameError where they do not make one.
StateDict unflatten_optimizer(const StateDict& tensors, const std::string& metadata);

/// Whether a value is the state of an optimizer that comes back to the bit.
bool is_optimizer(const StateValue& value);

/// The number that a tensor of BOOL, I64 or F64 without axes stands for; other numbers as they are.
/// StateError, with the name, for anything else.
StateValue scalar_of(const std::string& name, const StateValue& value);

/// A text of the metadata as JSON. StateError where it is none, or nests too deep.
nlohmann::json parse_metadata(const std::string& name, const std::string& text);

}  // namespace lockstep::checkpoint
