// The states of a model and its optimizer as the flat names of a safetensors file, and back.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string_view>
#include <utility>
#include <variant>

#include "lockstep/checkpoint/safetensors.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep::checkpoint {
namespace {

using nlohmann::json;

// The metadata that has what is no number of an optimizer's state:
// {"rule": …, "param_groups": [{"name": …, "params": […]}, …], "scalars": […]}.
constexpr const char* optimizer_key = "optimizer";

bool is_of_optimizer(std::string_view name) {
  return name.starts_with("state.") || name.starts_with("param_groups.");
}

// Strings, and dicts and lists of them.
json to_json(const StateValue& value) {
  if (const auto* dict = std::get_if<StateDict>(&value.variant())) {
    json result = json::object();
    for (const auto& [key, entry] : *dict) result[key] = to_json(entry);
    return result;
  }
  if (const auto* list = std::get_if<StateList>(&value.variant())) {
    json result = json::array();
    for (const StateValue& item : *list) result.push_back(to_json(item));
    return result;
  }
  return value.as_string();
}

StateValue from_json(const json& value) {
  if (value.is_object()) {
    StateDict result;
    for (const auto& [key, entry] : value.items()) result[key] = from_json(entry);
    return result;
  }
  if (value.is_array()) {
    StateList result;
    for (const json& item : value) result.push_back(from_json(item));
    return result;
  }
  return value.get<std::string>();
}

struct FlatOptimizer {
  StateDict tensors;
  std::string metadata;
};

void check_has_no_dot(const std::string& name) {
  if (name.find('.') != std::string::npos) {
    throw NameError(fmt::format("'{}' cannot be in a safetensors file, for it has a dot", name));
  }
}

FlatOptimizer flatten(const StateDict& optimizer) try {
  for (const auto& [key, value] : optimizer) {
    if (key != "rule" && key != "state" && key != "param_groups") {
      throw StateError(fmt::format(
          "the optimizer's '{}' cannot be in a safetensors file, which has slots and groups only",
          key));
    }
  }
  std::set<std::string> scalars;
  for (const auto& [name, slots] : optimizer.at("state").as_dict()) {
    for (const auto& [slot, value] : slots.as_dict()) {
      check_has_no_dot(slot);
      if (!std::holds_alternative<Tensor>(value.variant())) scalars.insert(slot);
    }
  }
  json groups = json::array();
  StateDict fields;
  for (const StateValue& value : optimizer.at("param_groups").as_list()) {
    StateDict group;
    for (const auto& [field, content] : value.as_dict()) {
      check_has_no_dot(field);
      if (field != "name" && field != "params") group[field] = content;
    }
    const std::string& name = value.as_dict().at("name").as_string();
    groups.push_back({{"name", name}, {"params", to_json(value.as_dict().at("params"))}});
    fields[name] = std::move(group);
  }
  StateDict tensors;
  tensors["state"] = optimizer.at("state");
  tensors["param_groups"] = std::move(fields);
  const json metadata{
      {"rule", to_json(optimizer.at("rule"))}, {"param_groups", groups}, {"scalars", scalars}};
  return {std::move(tensors), metadata.dump()};
} catch (const json::type_error& error) {
  throw NameError(fmt::format("the names of the optimizer's parameters: {}", error.what()));
}

// A tensor without axes as the number that it stands for.
StateValue scalar_of(const std::string& name, const Tensor& tensor) {
  if (tensor.shape().rank() == 0) {
    if (tensor.dtype() == DType::u8) return *tensor.data<std::uint8_t>() != 0;
    if (tensor.dtype() == DType::i64) return *tensor.data<std::int64_t>();
    if (tensor.dtype() == DType::f64) return *tensor.data<double>();
  }
  throw StateError(
      fmt::format("'{}': expected one BOOL, I64 or F64 without axes, found shape {}, {}", name,
                  to_string(tensor.shape()), to_string(tensor.dtype())));
}

// The optimizer's state dict from the tensors that are its.
StateDict unflatten(const StateDict& tensors, const std::string& metadata) try {
  const json description = json::parse(metadata);
  const auto scalars = description.at("scalars").get<std::set<std::string>>();
  StateDict states, fields;
  for (const auto& [full_name, value] : tensors) {
    if (!is_of_optimizer(full_name)) continue;
    const std::size_t begin = full_name.find('.') + 1, dot = full_name.rfind('.');
    if (dot < begin) throw NameError(fmt::format("'{}' is no name of an optimizer's", full_name));
    const std::string name = full_name.substr(begin, dot - begin);
    const std::string last = full_name.substr(dot + 1);
    const bool is_slot = full_name.starts_with("state.");
    StateValue& entry = (is_slot ? states : fields)[name].as_dict()[last];
    if (is_slot && !scalars.contains(last)) {
      entry = value;
    } else {
      entry = scalar_of(full_name, value.as_tensor());
    }
  }
  StateList groups;
  for (const json& group : description.at("param_groups")) {
    const auto name = group.at("name").get<std::string>();
    StateDict state = std::as_const(fields).at(name).as_dict();
    state["name"] = name;
    state["params"] = from_json(group.at("params"));
    groups.emplace_back(std::move(state));
  }
  if (groups.size() != fields.size()) {
    throw StateError(fmt::format("the file has hyper-parameters of {} param groups, and names {}",
                                 fields.size(), groups.size()));
  }
  StateDict state;
  state["rule"] = from_json(description.at("rule"));
  state["state"] = std::move(states);
  state["param_groups"] = std::move(groups);
  return state;
} catch (const json::exception& error) {
  throw StateError(fmt::format("its metadata '{}': {}", optimizer_key, error.what()));
}

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
    state[key] = is_tensor ? found->second : scalar_of(name, found->second.as_tensor());
    tensors.erase(found);
  }
  return state;
}

}  // namespace

void export_safetensors(const std::filesystem::path& path, const Stateful& model,
                        const Stateful* optimizer) {
  StateDict state = model.state_dict();
  if (optimizer == nullptr) return write_safetensors(path, state);
  for (const auto& [name, value] : state) {
    if (name == "state" || name == "param_groups" || is_of_optimizer(name)) {
      throw NameError(fmt::format(
          "the model's '{}' cannot be in a safetensors file with an optimizer's state", name));
    }
  }
  FlatOptimizer flat = flatten(optimizer->state_dict());
  for (auto& [key, value] : flat.tensors) state[key] = std::move(value);
  write_safetensors(path, state, {{optimizer_key, flat.metadata}});
}

void import_safetensors(const std::filesystem::path& path, Stateful& model, Stateful* optimizer) {
  const SafetensorsFile file = read_safetensors(path);
  const auto check = [&path](const char* what, const auto& function) {
    try {
      return function();
    } catch (const Error& error) {
      throw CheckpointError(fmt::format("the safetensors file '{}' does not fit the {}: {}",
                                        path.string(), what, error.what()));
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
    StateDict state = unflatten(file.tensors, metadata->second);
    optimizer->check_restore(state);
    return state;
  });
  model.restore(model_state);
  optimizer->restore(optimizer_state);
}

}  // namespace lockstep::checkpoint
