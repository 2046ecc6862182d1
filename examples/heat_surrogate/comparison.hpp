#pragma once

#include "surrogate.hpp"

/// Makes time steps from one state on, once with the exact source term and once with the surrogate,
/// and shows what they take and how far they part. Collective.
void compare(const Solver& solver, Surrogate& surrogate, const Decomposition& cells,
             const Options& options, const lockstep::Communicator& ranks);
