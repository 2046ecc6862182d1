#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "lockstep/state/state_dict.hpp"

// What the commands tell of a state, as JSON; what people read is made of the same.
namespace lockstep::tools {

using Json = nlohmann::ordered_json;

/// A number, or "NaN", "Infinity" or "-Infinity", which JSON has no numbers for.
Json number(double value);

/// The value of a bool, an integer, a double or a string; null for anything else.
Json scalar(const StateValue& value);

/// {"kind", and: for a tensor "dtype", "shape" and "bytes"; for a dict or list "size", the number of
/// its entries; else "value"}. Kinds are bool, integer, double, string, tensor, dict and list.
Json describe(const StateValue& value);

/// The entries of a dict or list, by key or index; none of anything else.
std::vector<std::pair<Json, const StateValue*>> children(const StateValue& value);

/// `path`, an array of keys and indices, and one more.
Json join(Json path, Json key);

/// Whether a value is what ParamGroup::state_dict() gives: "name", "params", and hyper-parameters,
/// which are bools and numbers.
bool is_param_group(const StateValue& value);

/// JSON on one line; bytes that are no UTF-8 become U+FFFD.
std::string to_text(const Json& json);

}  // namespace lockstep::tools
