#include "lockstep/nn/activations.hpp"

#include <fmt/format.h>

#include "lockstep/autograd/activations.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep::nn {

Variable ReLU::forward(const Variable& x) { return relu(x); }
Variable Tanh::forward(const Variable& x) { return tanh(x); }
Variable Sigmoid::forward(const Variable& x) { return sigmoid(x); }
Variable GELU::forward(const Variable& x) { return gelu(x); }
Variable SiLU::forward(const Variable& x) { return silu(x); }

Softplus::Softplus(double beta) : beta_(beta) {
  if (!(beta > 0)) {
    throw OptionError(fmt::format("Softplus: expected beta > 0, found {}", beta));
  }
}

Variable Softplus::forward(const Variable& x) { return softplus(x, beta_); }
Variable LeakyReLU::forward(const Variable& x) { return leaky_relu(x, negative_slope_); }
Variable ELU::forward(const Variable& x) { return elu(x, alpha_); }
Variable Softmax::forward(const Variable& x) { return softmax(x); }
Variable LogSoftmax::forward(const Variable& x) { return log_softmax(x); }

}  // namespace lockstep::nn
