#include "lockstep/optim/update_rule.hpp"

#include <fmt/format.h>

#include <cmath>
#include <type_traits>

#include "lockstep/core/error.hpp"

namespace lockstep::optim {
namespace {

Field find(UpdateRule& rule, std::string_view name) {
  std::string known;
  for (const Field& field : rule.fields()) {
    if (field.name == name) return field;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", field.name);
  }
  throw NameError(
      fmt::format("{} has no hyper-parameter '{}'; it has {}", rule.name(), name, known));
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

StateValue UpdateRule::get(std::string_view field) const {
  // fields() points into the rule, and is only read from here.
  return value_of(find(const_cast<UpdateRule&>(*this), field));
}

void UpdateRule::set(const StateDict& fields) {
  const StateDict before = options();
  try {
    for (const auto& [name, value] : fields) assign(find(*this, name), value);
    check();
  } catch (...) {
    for (const auto& [name, value] : before) assign(find(*this, name), value);
    throw;
  }
}

StateDict UpdateRule::options() const {
  StateDict options;
  for (const Field& field : const_cast<UpdateRule&>(*this).fields()) {
    options[field.name] = value_of(field);
  }
  return options;
}

void UpdateRule::require(bool valid, std::string_view expectation, double value) const {
  if (!valid || !std::isfinite(value)) {
    throw OptionError(fmt::format("{}: expected {}, found {}", name(), expectation, value));
  }
}

}  // namespace lockstep::optim
