#include "state/option_reader.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

#include "lockstep/core/error.hpp"

namespace lockstep {

void OptionReader::refuse(std::string_view name, std::string_view expected,
                          std::string_view found) const {
  throw OptionError(
      fmt::format("{}: option '{}': expected {}, found {}", owner_, name, expected, found));
}

const StateValue* OptionReader::find(std::string_view name, bool required) {
  if (!has(name)) {
    if (required) throw OptionError(fmt::format("{}: option '{}' is missing", owner_, name));
    return nullptr;
  }
  const StateValue& value = values_.at(name);
  if (std::holds_alternative<StateList>(value.variant())) refuse(name, "one value", "several");
  return &value;
}

std::vector<const StateValue*> OptionReader::find_all(std::string_view name) {
  if (!has(name)) return {};
  const StateValue& value = values_.at(name);
  const auto* list = std::get_if<StateList>(&value.variant());
  if (list == nullptr) return {&value};
  std::vector<const StateValue*> all;
  for (const StateValue& one : *list) all.push_back(&one);
  return all;
}

double OptionReader::number_of(std::string_view name, const StateValue& value) const {
  if (const auto* number = std::get_if<double>(&value.variant())) return *number;
  if (const auto* integer = std::get_if<std::int64_t>(&value.variant())) {
    return static_cast<double>(*integer);
  }
  refuse(name, "a number", value.kind());
}

std::int64_t OptionReader::integer_of(std::string_view name, const StateValue& value) const {
  if (const auto* integer = std::get_if<std::int64_t>(&value.variant())) return *integer;
  const double number = number_of(name, value);
  // Doubles are exact up to here.
  if (number != std::floor(number) || std::abs(number) > 0x1p53) {
    refuse(name, "an integer", fmt::format("{}", number));
  }
  return static_cast<std::int64_t>(number);
}

std::string OptionReader::text_of(std::string_view name, const StateValue& value) const {
  if (const auto* text = std::get_if<std::string>(&value.variant())) return *text;
  refuse(name, "a text", value.kind());
}

double OptionReader::number(std::string_view name, std::optional<double> otherwise) {
  const StateValue* value = find(name, !otherwise);
  return value == nullptr ? *otherwise : number_of(name, *value);
}

std::int64_t OptionReader::integer(std::string_view name, std::optional<std::int64_t> otherwise) {
  const StateValue* value = find(name, !otherwise);
  return value == nullptr ? *otherwise : integer_of(name, *value);
}

bool OptionReader::flag(std::string_view name, std::optional<bool> otherwise) {
  const StateValue* value = find(name, !otherwise);
  if (value == nullptr) return *otherwise;
  if (const auto* flag = std::get_if<bool>(&value->variant())) return *flag;
  const double number = number_of(name, *value);
  if (number != 0 && number != 1) refuse(name, "0 or 1", fmt::format("{}", number));
  return number == 1;
}

std::string OptionReader::text(std::string_view name, std::optional<std::string> otherwise) {
  const StateValue* value = find(name, !otherwise);
  return value == nullptr ? *otherwise : text_of(name, *value);
}

std::vector<double> OptionReader::numbers(std::string_view name) {
  std::vector<double> all;
  for (const StateValue* value : find_all(name)) all.push_back(number_of(name, *value));
  return all;
}

std::vector<std::int64_t> OptionReader::integers(std::string_view name) {
  std::vector<std::int64_t> all;
  for (const StateValue* value : find_all(name)) all.push_back(integer_of(name, *value));
  return all;
}

std::vector<std::string> OptionReader::texts(std::string_view name) {
  std::vector<std::string> all;
  for (const StateValue* value : find_all(name)) all.push_back(text_of(name, *value));
  return all;
}

void OptionReader::finish() const {
  for (const auto& [name, value] : values_) {
    if (asked_for_.contains(name)) continue;
    throw OptionError(
        fmt::format("{} has no option '{}'; it has {}", owner_, name,
                    asked_for_.empty() ? "none" : fmt::format("{}", fmt::join(asked_for_, ", "))));
  }
}

}  // namespace lockstep
