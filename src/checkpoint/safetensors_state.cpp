// The states of a model and its optimizer as the flat names of a safetensors file, and back.
#include <fmt/format.h>

#include <optional>
#include <utility>
#include <variant>

#include "checkpoint/safetensors_items.hpp"
#include "checkpoint/safetensors_optimizer.hpp"
#include "lockstep/checkpoint/safetensors.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep::checkpoint {
namespace {

// Moves what a model has from the tensors of a file into a state dict of the model's form. What it
// lacks is left out.
StateDict take(const StateDict& own, const std::string& prefix, StateDict::Map& tensors) {
  StateDict state;
  for (const auto& [key, value] : own) {
    const std::string name = prefix + key;
    if (const auto* dict = std::get_if<StateDict>(&value.variant())) {
      state[key] = take(*dict, name + ".", tensors);
      continue;
    }
    const auto found = tensors.find(name);
    if (found == tensors.end()) continue;
    const bool is_tensor = std::holds_alternative<Tensor>(value.variant());
    state[key] = is_tensor ? found->second : scalar_of(name, found->second);
    tensors.erase(found);
  }
  return state;
}

}  // namespace

void export_safetensors(const std::string& path, const Stateful& model, const Stateful* optimizer) {
  StateDict items;
  items["model"] = model.state_dict();
  ItemRoles roles{.model = "model", .optimizer = std::nullopt};
  if (optimizer != nullptr) {
    items["optimizer"] = optimizer->state_dict();
    roles.optimizer = "optimizer";
  }
  const SafetensorsFile file = pack_items(items, roles);
  write_safetensors(path, file.tensors, file.metadata);
}

void import_safetensors(const std::string& path, Stateful& model, Stateful* optimizer) {
  const SafetensorsFile file = read_safetensors(path);
  const auto check = [&path](const char* what, const auto& function) {
    try {
      return function();
    } catch (const Error& error) {
      throw CheckpointError(fmt::format("the safetensors file '{}' does not fit the {}: {}", path,
                                        what, error.what()));
    }
  };
  const auto metadata = file.metadata.find(optimizer_key);
  const bool has_optimizer = metadata != file.metadata.end();
  const StateDict model_state = check("model", [&] {
    StateDict::Map tensors;
    for (const auto& [name, tensor] : file.tensors) {
      if (!has_optimizer || !is_of_optimizer(name)) tensors.emplace(name, tensor);
    }
    StateDict state = take(model.state_dict(), "", tensors);
    for (auto& [name, tensor] : tensors) state[name] = std::move(tensor);
    model.check_restore(state);
    return state;
  });
  if (optimizer == nullptr) return model.restore(model_state);
  const StateDict optimizer_state = check("optimizer", [&] {
    if (!has_optimizer) {
      throw StateError(fmt::format("it has no state of one: no metadata '{}'", optimizer_key));
    }
    StateDict state = unflatten_optimizer(file.tensors, metadata->second);
    optimizer->check_restore(state);
    return state;
  });
  model.restore(model_state);
  optimizer->restore(optimizer_state);
}

}  // namespace lockstep::checkpoint
