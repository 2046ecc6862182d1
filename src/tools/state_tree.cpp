#include "tools/state_tree.hpp"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <variant>

namespace lockstep::tools {

Json number(double value) {
  if (std::isfinite(value)) return value;
  return std::isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity";
}

Json scalar(const StateValue& value) {
  return std::visit(
      []<class T>(const T& content) -> Json {
        if constexpr (std::is_same_v<T, double>) {
          return number(content);
        } else if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, std::int64_t> ||
                             std::is_same_v<T, std::string>) {
          return content;
        } else {
          return nullptr;
        }
      },
      value.variant());
}

Json describe(const StateValue& value) {
  const std::string_view kind = value.kind();
  Json entry{{"kind", kind.substr(kind.find(' ') + 1)}};
  if (const auto* tensor = std::get_if<Tensor>(&value.variant())) {
    entry["dtype"] = to_string(tensor->dtype());
    entry["shape"] = Json::array();
    for (const std::int64_t extent : tensor->shape()) entry["shape"].push_back(extent);
    entry["bytes"] = tensor->bytes();
  } else if (const auto* dict = std::get_if<StateDict>(&value.variant())) {
    entry["size"] = dict->size();
  } else if (const auto* list = std::get_if<StateList>(&value.variant())) {
    entry["size"] = list->size();
  } else {
    entry["value"] = scalar(value);
  }
  return entry;
}

std::vector<std::pair<Json, const StateValue*>> children(const StateValue& value) {
  std::vector<std::pair<Json, const StateValue*>> result;
  if (const auto* dict = std::get_if<StateDict>(&value.variant())) {
    for (const auto& [key, child] : *dict) result.emplace_back(key, &child);
  } else if (const auto* list = std::get_if<StateList>(&value.variant())) {
    for (const StateValue& child : *list) result.emplace_back(result.size(), &child);
  }
  return result;
}

Json join(Json path, Json key) {
  path.push_back(std::move(key));
  return path;
}

bool is_param_group(const StateValue& value) {
  const auto* dict = std::get_if<StateDict>(&value.variant());
  if (dict == nullptr || !dict->contains("name") || !dict->contains("params")) return false;
  const auto is_string = [](const StateValue& entry) {
    return std::holds_alternative<std::string>(entry.variant());
  };
  const auto* names = std::get_if<StateList>(&dict->at("params").variant());
  return is_string(dict->at("name")) && names != nullptr &&
         std::all_of(names->begin(), names->end(), is_string) &&
         std::all_of(dict->begin(), dict->end(), [&](const auto& field) {
           const auto& [name, content] = field;
           if (name == "name" || name == "params") return true;
           return !is_string(content) && !scalar(content).is_null();
         });
}

std::string to_text(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace lockstep::tools
