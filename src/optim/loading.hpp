#pragma once

#include <string>

#include "lockstep/optim/keyed_optimizer.hpp"

namespace lockstep::optim {

/// Throws StateError, listing the names, where some are missing or unexpected.
void check_strict(const LoadReport& report);

/// The numbers in another floating-point dtype; StateError, naming `what`, where one that is finite
/// is outside its range.
Tensor converted(const Tensor& numbers, DType dtype, const std::string& what);

}  // namespace lockstep::optim
