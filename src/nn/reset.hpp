#pragma once

#include "lockstep/autograd/parameter.hpp"
#include "lockstep/tensor/random.hpp"

namespace lockstep::nn {

/// Draws both from U(-1/√fan_in, 1/√fan_in), fan_in being what a number of the result of a layer comes from: all axes
/// of the weight but the first. The bias may be undefined.
void reset(Parameter& weight, Parameter& bias, RandomKey key);

}  // namespace lockstep::nn
