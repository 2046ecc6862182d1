#pragma once

#include "lockstep/optim/keyed_optimizer.hpp"

namespace lockstep::optim {

/// Throws StateError, listing the names, where some are missing or unexpected.
void check_strict(const LoadReport& report);

}  // namespace lockstep::optim
