#pragma once

#include <lockstep/lockstep.hpp>

#include "lockstep/testing/mpi_test.hpp"

LOCKSTEP_TEST_RANKS(2);

namespace lockstep {

/// What the snippets of docs/layers.md take for granted.
class Snippets : public ::testing::Test {};

}  // namespace lockstep
