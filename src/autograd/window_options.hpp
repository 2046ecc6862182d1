#pragma once

#include "lockstep/autograd/convolution.hpp"

namespace lockstep::autograd {

/// Throw OptionError, naming `what`, where a kernel or options are outside the range that conv2d
/// and max_pool2d document.
void check_options(const char* what, Size2d kernel, const ConvolutionOptions& options);
void check_options(const char* what, Size2d kernel, const PoolingOptions& options);

}  // namespace lockstep::autograd
