#include "checkpoint/safetensors_items.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "checkpoint/safetensors_optimizer.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep::checkpoint {
namespace {

using nlohmann::json;

// The metadata that has what names do not tell: {"model": …, "optimizer": …, "items": {…}}, the names of
// these two items, and by name the trees of all items but the optimizer.
constexpr const char* items_key = "lockstep";
constexpr const char* default_model = "model";
constexpr const char* default_optimizer = "optimizer";

bool is_tensor(const StateValue& value) { return std::holds_alternative<Tensor>(value.variant()); }

// Dicts and lists, and in them the kind of each value, such as "tensor".
json tree_of(const StateValue& value) {
  if (const auto* dict = std::get_if<StateDict>(&value.variant())) {
    json tree = json::object();
    for (const auto& [key, entry] : *dict) tree[key] = tree_of(entry);
    return tree;
  }
  if (const auto* list = std::get_if<StateList>(&value.variant())) {
    json tree = json::array();
    for (const StateValue& item : *list) tree.push_back(tree_of(item));
    return tree;
  }
  const std::string_view kind = value.kind();
  return kind.substr(kind.find(' ') + 1);
}

// Whether names alone tell all that there is to know.
bool are_plain(const StateDict& items, const ItemRoles& roles) {
  if (roles.model != default_model ||
      roles.optimizer.value_or(default_optimizer) != default_optimizer)
    return false;
  if (items.size() != (roles.optimizer ? 2 : 1)) return false;
  const StateDict& model = items.at(default_model).as_dict();
  return !model.empty() && std::all_of(model.begin(), model.end(),
                                       [](const auto& entry) { return is_tensor(entry.second); });
}

std::string describe(const StateDict& items, const ItemRoles& roles) try {
  json trees = json::object();
  for (const auto& [name, value] : items) {
    if (name != roles.optimizer) trees[name] = tree_of(value);
  }
  json description{{"items", std::move(trees)}};
  if (roles.model) description["model"] = *roles.model;
  if (roles.optimizer) description["optimizer"] = *roles.optimizer;
  return description.dump();
} catch (const json::type_error&) {
  throw NameError("a name in the items is not valid UTF-8, which a safetensors file needs");
}

// Takes the values of items out of a file.
class Unpacker {
 public:
  explicit Unpacker(SafetensorsFile& file) : file_(file) {
    for (const auto& [name, value] : file.tensors) unused_.insert(name);
  }

  StateDict unpack(const std::optional<std::string>& model) {
    StateDict items;
    if (file_.metadata.contains(items_key)) {
      unpack_described(parse_metadata(items_key, take_text(items_key)), model, items);
    } else {
      unpack_plain(model.value_or(default_model), items);
    }
    if (!unused_.empty()) {
      throw StateError(fmt::format("its tensor '{}' is of none of its items", *unused_.begin()));
    }
    file_.tensors = {};
    return items;
  }

 private:
  void unpack_described(const json& description, const std::optional<std::string>& new_name,
                        StateDict& items) {
    try {
      const auto role = [&description](const char* key) -> std::optional<std::string> {
        if (!description.contains(key)) return std::nullopt;
        return description.at(key).get<std::string>();
      };
      const ItemRoles roles{.model = role("model"), .optimizer = role("optimizer")};
      if (new_name && !roles.model) {
        throw StateError("it has no model that could have another name");
      }
      if (roles.optimizer) add(items, *roles.optimizer, take_optimizer());
      for (const auto& [name, tree] : description.at("items").items()) {
        if (name == roles.model) {
          add(items, new_name.value_or(name), take("", tree));
        } else {
          add(items, name, take(name, tree));
        }
      }
    } catch (const json::exception& error) {
      throw StateError(fmt::format("its metadata '{}': {}", items_key, error.what()));
    }
  }

  void unpack_plain(const std::string& model, StateDict& items) {
    if (file_.metadata.contains(optimizer_key) &&
        std::any_of(unused_.begin(), unused_.end(), is_of_optimizer)) {
      add(items, default_optimizer, take_optimizer());
    }
    StateDict tensors;
    for (const std::string& name : unused_) tensors[name] = std::as_const(file_.tensors).at(name);
    unused_.clear();
    add(items, model, std::move(tensors));
  }

  static void add(StateDict& items, const std::string& name, StateValue value) {
    if (items.contains(name)) throw NameError(fmt::format("two items are called '{}'", name));
    items[name] = std::move(value);
  }

  std::string take_text(const std::string& name) {
    const auto found = file_.metadata.extract(name);
    if (found.empty()) throw StateError(fmt::format("it has no text '{}'", name));
    return found.mapped();
  }

  StateDict take_optimizer() {
    StateDict state = unflatten_optimizer(file_.tensors, take_text(optimizer_key));
    std::erase_if(unused_, is_of_optimizer);
    return state;
  }

  StateValue take(const std::string& name, const json& tree) {
    const std::string prefix = name.empty() ? "" : name + ".";
    if (tree.is_object()) {
      StateDict dict;
      for (const auto& [key, entry] : tree.items()) dict[key] = take(prefix + key, entry);
      return dict;
    }
    if (tree.is_array()) {
      StateList list;
      for (const json& entry : tree)
        list.push_back(take(prefix + std::to_string(list.size()), entry));
      return list;
    }
    const auto kind = tree.get<std::string>();
    if (kind == "string") return take_text(name);
    const auto found = unused_.find(name);
    if (found == unused_.end()) throw StateError(fmt::format("it has no tensor '{}'", name));
    unused_.erase(found);
    const StateValue& tensor = std::as_const(file_.tensors).at(name);
    if (kind == "tensor") return tensor;
    StateValue scalar = scalar_of(name, tensor);
    if (std::string_view(scalar.kind()).ends_with(" " + kind)) return scalar;
    throw StateError(fmt::format("'{}': expected kind {}, found {}", name, kind, scalar.kind()));
  }

  SafetensorsFile& file_;
  std::set<std::string> unused_;  // tensors
};

}  // namespace

ItemRoles find_roles(const StateDict& items) {
  std::vector<std::string> optimizers, others;
  for (const auto& [name, value] : items) {
    if (is_optimizer(value)) {
      optimizers.push_back(name);
    } else if (std::holds_alternative<StateDict>(value.variant())) {
      others.push_back(name);
    }
  }
  ItemRoles roles;
  if (optimizers.size() == 1) roles.optimizer = optimizers.front();
  const bool has_model = std::find(others.begin(), others.end(), default_model) != others.end();
  if (has_model) {
    roles.model = default_model;
  } else if (items.size() == (roles.optimizer ? 2 : 1) && others.size() == 1) {
    roles.model = others.front();
  }
  return roles;
}

SafetensorsFile pack_items(const StateDict& items, const ItemRoles& roles) {
  SafetensorsFile file;
  if (roles.model) file.tensors = items.at(*roles.model).as_dict();
  for (const auto& [name, value] : items) {
    if (name == roles.model || name == roles.optimizer) continue;
    if (file.tensors.contains(name)) {
      throw NameError(fmt::format("the model has '{}', as another item is called", name));
    }
    file.tensors[name] = value;
  }
  if (roles.optimizer) {
    for (const auto& [name, value] : file.tensors) check_is_not_of_optimizer(name);
    FlatOptimizer flat = flatten_optimizer(items.at(*roles.optimizer).as_dict());
    for (auto& [key, value] : flat.tensors) file.tensors[key] = std::move(value);
    file.metadata[optimizer_key] = flat.metadata;
  }
  if (!are_plain(items, roles)) file.metadata[items_key] = describe(items, roles);
  return file;
}

StateDict unpack_items(SafetensorsFile& file, const std::optional<std::string>& model) {
  return Unpacker(file).unpack(model);
}

}  // namespace lockstep::checkpoint
