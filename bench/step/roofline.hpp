#pragma once

#include <lockstep/comm/communicator.hpp>

#include "program.hpp"
#include "step/networks.hpp"

namespace bench {

/// The time of a step in ms beside the least that it can take: what its products need at the rate of the best product, and
/// after that what the optimizer and the reduction move, at the rate of a triad. All are measured in turns, on all ranks at
/// once.
SetUp roofline(const Network& network, const lockstep::Communicator& ranks,
               std::function<std::function<void()>()> set_up_step);

}  // namespace bench
