#pragma once

#include <fmt/format.h>

#include <cmath>
#include <string_view>
#include <type_traits>

#include "lockstep/core/error.hpp"

namespace lockstep::optim::schedule {

/// Throws OptionError "schedule <name>: expected <expectation>, found <value>" unless `valid` and
/// finite.
template <class Number>
void require(std::string_view name, bool valid, std::string_view expectation, Number value) {
  if constexpr (std::is_floating_point_v<Number>) valid = valid && std::isfinite(value);
  if (valid) return;
  throw OptionError(fmt::format("schedule {}: expected {}, found {}", name, expectation, value));
}

}  // namespace lockstep::optim::schedule
