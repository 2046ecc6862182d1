#pragma once

#include <string>

#include "lockstep/state/stateful.hpp"

namespace lockstep {

/// Throws StateError, listing the names, where some are missing or unexpected.
void check_strict(const LoadReport& report);

/// StateError, listing the names, where a state dict has not the entries of an object's own.
void check_names(const StateDict& own, const StateDict& source);

/// The numbers in another floating-point dtype; StateError, naming `what`, where one that is finite
/// is outside its range.
Tensor converted(const Tensor& numbers, DType dtype, const std::string& what);

}  // namespace lockstep
