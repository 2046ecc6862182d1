#include "lockstep/state/scalars.hpp"

#include <fmt/format.h>

#include <type_traits>

#include "lockstep/core/error.hpp"
#include "state/loading.hpp"

namespace lockstep {

StateDict Scalars::state_dict() const {
  StateDict state;
  for (const auto& [name, scalar] : scalars_) {
    state[name] = std::visit([](const auto* value) { return StateValue(*value); }, scalar);
  }
  return state;
}

void Scalars::check_restore(const StateDict& source) const {
  const StateDict own = state_dict();
  check_names(own, source);
  for (const auto& [name, value] : own) {
    const StateValue& found = source.at(name);
    if (found.kind() != value.kind()) {
      throw StateError(fmt::format("'{}': expected {} in the state dict, found {}", name,
                                   value.kind(), found.kind()));
    }
  }
}

void Scalars::restore(const StateDict& source) {
  check_restore(source);
  for (const auto& [name, scalar] : scalars_) {
    const StateValue::Variant& found = source.at(name).variant();
    std::visit(
        [&found](auto* value) { *value = std::get<std::remove_pointer_t<decltype(value)>>(found); },
        scalar);
  }
}

}  // namespace lockstep
