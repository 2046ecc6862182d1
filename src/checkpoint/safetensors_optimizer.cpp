#include "checkpoint/safetensors_optimizer.hpp"

#include <fmt/format.h>

#include <set>
#include <utility>
#include <variant>

#include "lockstep/core/error.hpp"
#include "state/records.hpp"

namespace lockstep::checkpoint {
namespace {

using nlohmann::json;

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

void check_has_no_dot(const std::string& name) {
  if (name.find('.') != std::string::npos) {
    throw NameError(fmt::format("'{}' cannot be in a safetensors file, for it has a dot", name));
  }
}

// The entries of the innermost dicts by their full names.
void add_names(const std::string& prefix, const StateDict& state, StateDict& names) {
  for (const auto& [key, value] : state) {
    if (const auto* dict = std::get_if<StateDict>(&value.variant())) {
      add_names(prefix + key + ".", *dict, names);
    } else {
      names[prefix + key] = value;
    }
  }
}

}  // namespace

bool is_of_optimizer(std::string_view name) {
  return name.starts_with("state.") || name.starts_with("param_groups.");
}

void check_is_not_of_optimizer(const std::string& name) {
  if (name == "state" || name == "param_groups" || is_of_optimizer(name)) {
    throw NameError(fmt::format(
        "'{}' cannot be in a safetensors file with the state of an optimizer, which has such names",
        name));
  }
}

FlatOptimizer flatten_optimizer(const StateDict& optimizer) try {
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

StateDict unflatten_optimizer(const StateDict& tensors, const std::string& metadata) try {
  const json description = parse_metadata(optimizer_key, metadata);
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
      entry = scalar_of(full_name, value);
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

bool is_optimizer(const StateValue& value) {
  const auto* state = std::get_if<StateDict>(&value.variant());
  if (state == nullptr) return false;
  try {
    const FlatOptimizer flat = flatten_optimizer(*state);
    StateDict names;
    add_names("", flat.tensors, names);
    return bit_equal(unflatten_optimizer(names, flat.metadata), *state);
  } catch (const Error&) {
    return false;
  }
}

StateValue scalar_of(const std::string& name, const StateValue& value) {
  const auto* tensor = std::get_if<Tensor>(&value.variant());
  if (tensor == nullptr) {
    const bool is_number = std::holds_alternative<bool>(value.variant()) ||
                           std::holds_alternative<std::int64_t>(value.variant()) ||
                           std::holds_alternative<double>(value.variant());
    if (is_number) return value;
    throw StateError(fmt::format("'{}': expected a number, found {}", name, value.kind()));
  }
  if (tensor->shape().rank() == 0) {
    if (tensor->dtype() == DType::u8) return *tensor->data<std::uint8_t>() != 0;
    if (tensor->dtype() == DType::i64) return *tensor->data<std::int64_t>();
    if (tensor->dtype() == DType::f64) return *tensor->data<double>();
  }
  throw StateError(
      fmt::format("'{}': expected one BOOL, I64 or F64 without axes, found shape {}, {}", name,
                  to_string(tensor->shape()), to_string(tensor->dtype())));
}

json parse_metadata(const std::string& name, const std::string& text) {
  // The deepest has the tree of a state, of which the items are at depth 2.
  const auto check = [&name](int depth, json::parse_event_t, const json&) {
    if (depth > max_state_depth + 1) {
      throw StateError(fmt::format("its metadata '{}' nests too deep", name));
    }
    return true;
  };
  try {
    return json::parse(text, check);
  } catch (const json::exception& error) {
    throw StateError(fmt::format("its metadata '{}': {}", name, error.what()));
  }
}

}  // namespace lockstep::checkpoint
