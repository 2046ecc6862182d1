#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lockstep/testing/trajectory.hpp"

namespace lockstep::testing {

/// A value of a trajectory as its file has it.
using Json = nlohmann::ordered_json;

/// OptionError for a part of a tensor. Neither a dict nor a list.
Json describe_value(std::string_view name, const StateValue& value);

/// What is not alike in two values, in words; nothing where they are within the tolerance.
std::optional<std::string> difference(const Json& found, const Json& stored,
                                      const Tolerance& tolerance);

struct TrajectoryStep {
  std::int64_t step = 0;
  std::vector<std::pair<std::string, Json>> values;

  const Json* find(std::string_view name) const;
};

std::string to_file(const std::vector<TrajectoryStep>& steps);
/// StateError where the text is no trajectory.
std::vector<TrajectoryStep> from_file(const std::string& text);

}  // namespace lockstep::testing
