#include "lockstep/optim/hyper_parameters.hpp"

#include <fmt/format.h>

#include <cmath>
#include <type_traits>

#include "lockstep/core/error.hpp"

namespace lockstep::optim {
namespace {

Field find(HyperParameters& owner, std::string_view name) {
  std::string known;
  for (const Field& field : owner.fields()) {
    if (field.name == name) return field;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", field.name);
  }
  throw NameError(
      fmt::format("{} has no hyper-parameter '{}'; it has {}", owner.name(), name, known));
}

StateValue value_of(const Field& field) {
  return std::visit([](const auto* value) { return StateValue(*value); }, field.value);
}

void assign(const Field& field, const StateValue& value) try {
  std::visit(
      [&value]<class T>(T* target) {
        if constexpr (std::is_same_v<T, bool>) {
          *target = value.as_bool();
        } else if constexpr (std::is_same_v<T, std::int64_t>) {
          *target = value.as_int();
        } else {
          const auto* integer = std::get_if<std::int64_t>(&value.variant());
          *target = integer != nullptr ? static_cast<double>(*integer) : value.as_double();
        }
      },
      field.value);
} catch (const StateError& error) {
  throw StateError(fmt::format("hyper-parameter '{}': {}", field.name, error.what()));
}

}  // namespace

void HyperParameters::check() const {
  for (const Field& field : const_cast<HyperParameters&>(*this).fields()) {
    if (std::holds_alternative<bool*>(field.value)) continue;
    const double value = std::holds_alternative<double*>(field.value)
                             ? *std::get<double*>(field.value)
                             : static_cast<double>(*std::get<std::int64_t*>(field.value));
    switch (field.domain) {
      case Domain::any:
        require(std::isfinite(value), fmt::format("a finite {}", field.name), value);
        break;
      case Domain::non_negative:
        require(value >= 0, fmt::format("{} >= 0", field.name), value);
        break;
      case Domain::positive:
        require(value > 0, fmt::format("{} > 0", field.name), value);
        break;
      case Domain::fraction:
        require(value >= 0 && value < 1, fmt::format("0 <= {} < 1", field.name), value);
        break;
    }
  }
}

StateValue HyperParameters::get(std::string_view field) const {
  // fields() points into the object, and is only read from here.
  return value_of(find(const_cast<HyperParameters&>(*this), field));
}

void HyperParameters::set(const StateDict& values) {
  const StateDict before = options();
  try {
    for (const auto& [name, value] : values) assign(find(*this, name), value);
    check();
  } catch (...) {
    for (const auto& [name, value] : before) assign(find(*this, name), value);
    throw;
  }
}

StateDict HyperParameters::options() const {
  StateDict options;
  for (const Field& field : const_cast<HyperParameters&>(*this).fields()) {
    options[field.name] = value_of(field);
  }
  return options;
}

void HyperParameters::require(bool valid, std::string_view expectation, double value) const {
  if (!valid || !std::isfinite(value)) {
    throw OptionError(fmt::format("{}: expected {}, found {}", name(), expectation, value));
  }
}

}  // namespace lockstep::optim
