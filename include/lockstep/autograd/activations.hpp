#pragma once

#include "lockstep/autograd/variable.hpp"

#pragma GCC visibility push(default)

// Differentiable functions of each element, and of each row, as f32 and f64. NaN gives NaN.
namespace lockstep {

/// max(x, 0); the derivative at 0 is 0.
Variable relu(const Variable& x);
Variable tanh(const Variable& x);
/// 1 / (1 + exp(-x))
Variable sigmoid(const Variable& x);
/// x · Φ(x) with Φ the normal distribution function, by erf: Hendrycks, Gimpel, arXiv:1606.08415.
Variable gelu(const Variable& x);
/// x · sigmoid(x), which is also called swish: Elfwing, Uchibe, Doya, arXiv:1702.03118.
Variable silu(const Variable& x);
/// ln(1 + exp(beta · x)) / beta: Dugas et al., "Incorporating second-order functional knowledge for
/// better option pricing", 2000. OptionError unless beta > 0.
Variable softplus(const Variable& x, double beta = 1);
/// x above 0, and negative_slope · x below and at 0: Maas, Hannun, Ng, "Rectifier nonlinearities improve
/// neural network acoustic models", 2013.
Variable leaky_relu(const Variable& x, double negative_slope = 0.01);
/// x above 0, and alpha · (exp(x) - 1) below: Clevert, Unterthiner, Hochreiter, arXiv:1511.07289.
Variable elu(const Variable& x, double alpha = 1);

/// exp(x) / Σ exp(x) over the last axis, and its logarithm, which is x - ln Σ exp(x). ShapeError for a
/// scalar.
Variable softmax(const Variable& x);
Variable log_softmax(const Variable& x);

}  // namespace lockstep

#pragma GCC visibility pop
