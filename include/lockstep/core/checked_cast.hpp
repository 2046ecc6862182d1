#pragma once

#include <string>
#include <utility>

#include "lockstep/core/error.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

/// Converts between integer types; throws OptionError, naming `what`, where the value does not fit.
template <class To, class From>
To checked_cast(From value, const char* what) {
  if (!std::in_range<To>(value)) {
    throw OptionError(std::string(what) + ": " + std::to_string(value) + " does not fit in " +
                      std::to_string(sizeof(To) * 8) + " bits");
  }
  return static_cast<To>(value);
}

}  // namespace lockstep

#pragma GCC visibility pop
