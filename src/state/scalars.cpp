#include "lockstep/state/scalars.hpp"

#include <fmt/format.h>

#include "lockstep/core/error.hpp"

namespace lockstep {

StateDict Scalars::state_dict() const {
  StateDict state;
  for (const auto& [name, number] : numbers_) {
    state[name] = std::visit([](const auto* value) { return StateValue(*value); }, number);
  }
  return state;
}

void Scalars::check_restore(const StateDict& source) const {
  for (const auto& [name, number] : numbers_) {
    const StateValue& found = source.at(name);
    const StateValue own = std::visit([](const auto* value) { return StateValue(*value); }, number);
    if (found.kind() != own.kind()) {
      throw StateError(fmt::format("'{}': expected {} in the state dict, found {}", name,
                                   own.kind(), found.kind()));
    }
  }
}

void Scalars::restore(const StateDict& source) {
  check_restore(source);
  for (const auto& [name, number] : numbers_) {
    if (double* const* real = std::get_if<double*>(&number)) {
      **real = source.at(name).as_double();
    } else {
      *std::get<std::int64_t*>(number) = source.at(name).as_int();
    }
  }
}

}  // namespace lockstep
