#include "testing/trajectory_values.hpp"

#include <fmt/format.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <variant>

#include "lockstep/core/error.hpp"

namespace lockstep::testing {
namespace {

constexpr const char* schema = "lockstep.trajectory";
constexpr int version = 1;
constexpr std::int64_t most_numbers = 16;

// JSON has no words for what is not finite.
Json of_number(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  return value;
}

double to_number(const Json& value) {
  if (value.is_number()) return value.get<double>();
  const auto word = value.get<std::string>();
  constexpr double infinity = std::numeric_limits<double>::infinity();
  return word == "inf" ? infinity : word == "-inf" ? -infinity : std::nan("");
}

std::vector<std::int64_t> places(std::int64_t size) {
  const std::int64_t count = std::min(size, most_numbers);
  std::vector<std::int64_t> all;
  for (std::int64_t i = 0; i < count; ++i) {
    all.push_back(count == 1 ? 0 : i * (size - 1) / (count - 1));
  }
  return all;
}

// The shortest decimal number that has this float next to it, so that the file has no digits that say nothing.
double shortest(float value) {
  return std::isfinite(value) ? std::stod(fmt::format("{}", value)) : value;
}

Json of_tensor(const Tensor& tensor) {
  const Tensor numbers = tensor.to(DType::f64);
  const std::span<const double> values = numbers.span<double>();
  double squares = 0;
  for (const double value : values) squares += value * value;
  Json shape = Json::array(), some = Json::array();
  for (const std::int64_t length : tensor.shape()) shape.push_back(length);
  for (const std::int64_t place : places(tensor.size())) {
    const double value = values[static_cast<std::size_t>(place)];
    const bool is_f32 = tensor.dtype() == DType::f32;
    some.push_back(of_number(is_f32 ? shortest(static_cast<float>(value)) : value));
  }
  return {{"dtype", to_string(tensor.dtype())},
          {"shape", std::move(shape)},
          {"hash", fmt::format("{:016x}", XXH3_64bits(tensor.raw(), tensor.bytes()))},
          {"norm", of_number(std::sqrt(squares))},
          {"numbers", std::move(some)}};
}

bool is_tensor(const Json& value) { return value.is_object() && value.contains("hash"); }
bool is_number(const Json& value) { return value.is_number_float() || value.contains("number"); }

std::string type_of(const Json& value) {
  if (is_tensor(value)) {
    return fmt::format("{} {}", value.at("dtype").get<std::string>(), value.at("shape").dump());
  }
  if (is_number(value)) return "a number";
  return value.is_number() ? "an integer" : value.is_boolean() ? "a bool" : "a text";
}

std::optional<std::string> difference_of_numbers(double found, double stored,
                                                 const Tolerance& tolerance) {
  if (found == stored || (std::isnan(found) && std::isnan(stored))) return {};
  const double off = std::abs(found - stored);
  const double most = tolerance.absolute + tolerance.relative * std::abs(stored);
  if (off <= most) return {};
  return fmt::format("{} is stored, {} found: off by {:.2g}{}", stored, found, off,
                     most > 0 ? fmt::format(", where {:.2g} is allowed", most) : "");
}

double number_of(const Json& value) {
  return to_number(value.is_object() ? value.at("number") : value);
}

std::optional<std::string> difference_of_tensors(const Json& found, const Json& stored,
                                                 const Tolerance& tolerance) {
  if (found.at("hash") == stored.at("hash")) return {};
  std::int64_t size = 1;
  for (const Json& length : found.at("shape")) size *= length.get<std::int64_t>();
  const std::vector<std::int64_t> indices = places(size);
  for (std::size_t i = 0; i < indices.size(); ++i) {
    const auto text = difference_of_numbers(to_number(found.at("numbers").at(i)),
                                            to_number(stored.at("numbers").at(i)), tolerance);
    if (text) return fmt::format("number {} of {}: {}", indices[i], type_of(found), *text);
  }
  const auto text =
      difference_of_numbers(to_number(found.at("norm")), to_number(stored.at("norm")), tolerance);
  if (text) return fmt::format("norm of {}: {}", type_of(found), *text);
  if (tolerance.absolute > 0 || tolerance.relative > 0) return {};
  return fmt::format("some of {} differ, and none of those that the file has", type_of(found));
}

}  // namespace

Json describe_value(std::string_view name, const StateValue& value) {
  if (const auto* tensor = std::get_if<Tensor>(&value.variant())) return of_tensor(*tensor);
  if (const auto* number = std::get_if<double>(&value.variant())) {
    const Json json = of_number(*number);
    return json.is_string() ? Json{{"number", json}} : json;
  }
  if (const auto* number = std::get_if<std::int64_t>(&value.variant())) return *number;
  if (const auto* truth = std::get_if<bool>(&value.variant())) return *truth;
  if (const auto* text = std::get_if<std::string>(&value.variant())) return *text;
  throw OptionError(
      fmt::format("{} is {}, which a trajectory cannot have: gather it first", name, value.kind()));
}

std::optional<std::string> difference(const Json& found, const Json& stored,
                                      const Tolerance& tolerance) {
  if (type_of(found) != type_of(stored)) {
    return fmt::format("{} is stored, {} found", type_of(stored), type_of(found));
  }
  if (is_tensor(found)) return difference_of_tensors(found, stored, tolerance);
  if (is_number(found)) {
    return difference_of_numbers(number_of(found), number_of(stored), tolerance);
  }
  if (found == stored) return {};
  return fmt::format("{} is stored, {} found", stored.dump(), found.dump());
}

const Json* TrajectoryStep::find(std::string_view name) const {
  const auto found = std::find_if(values.begin(), values.end(),
                                  [&](const auto& value) { return value.first == name; });
  return found == values.end() ? nullptr : &found->second;
}

std::string to_file(const std::vector<TrajectoryStep>& steps) {
  // A value a line, so that a version control system shows which have changed.
  std::string text =
      fmt::format("{{\"schema\": \"{}\", \"version\": {}, \"steps\": [", schema, version);
  const char* between_steps = "\n";
  for (const TrajectoryStep& step : steps) {
    text += fmt::format("{}  {{\"step\": {}, \"values\": {{", between_steps, step.step);
    const char* between_values = "\n";
    for (const auto& [name, value] : step.values) {
      text += fmt::format("{}    {}: {}", between_values, Json(name).dump(), value.dump());
      between_values = ",\n";
    }
    text += "\n  }}";
    between_steps = ",\n";
  }
  return text + "\n]}\n";
}

std::vector<TrajectoryStep> from_file(const std::string& text) {
  try {
    const Json file = Json::parse(text);
    if (file.at("schema") != schema || file.at("version") != version) {
      throw StateError(fmt::format("expected schema \"{}\", version {}", schema, version));
    }
    std::vector<TrajectoryStep> steps;
    for (const Json& step : file.at("steps")) {
      TrajectoryStep& made = steps.emplace_back();
      made.step = step.at("step").get<std::int64_t>();
      for (const auto& [name, value] : step.at("values").items())
        made.values.emplace_back(name, value);
    }
    return steps;
  } catch (const Json::exception& error) {
    throw StateError(error.what());
  }
}

}  // namespace lockstep::testing
