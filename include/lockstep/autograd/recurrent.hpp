#pragma once

#include "lockstep/autograd/variable.hpp"

#pragma GCC visibility push(default)

// Recurrent layers over sequences x of (n, steps, in), one operation each, of f32 and f64. An undefined state is
// zero. ShapeError and DTypeError where operands do not fit.
namespace lockstep {

/// Of g gates with h numbers each, one gate after another.
struct RecurrentWeights {
  Variable input;        ///< (g · h, in)
  Variable hidden;       ///< (g · h, h)
  Variable input_bias;   ///< (g · h), or undefined
  Variable hidden_bias;  ///< the same
};

struct LstmResult {
  Variable outputs;  ///< (n, steps, h): h_t
  Variable hidden;   ///< (n, h): that of the last step
  Variable cell;     ///< (n, h): c_t of the last step
};

/// Hochreiter, Schmidhuber, "Long short-term memory", 1997, with forget gates, as in PyTorch:
///
///     i, f, o = sigmoid(W x_t + b + U h_{t-1} + d), g = tanh(…)
///     c_t = f · c_{t-1} + i · g,  h_t = o · tanh(c_t)
///
/// with the gates in the order i, f, g, o. With `reverse` the last step comes first.
LstmResult lstm(const Variable& x, const RecurrentWeights& weights, const Variable& hidden = {},
                const Variable& cell = {}, bool reverse = false);

struct GruResult {
  Variable outputs;  ///< (n, steps, h): h_t
  Variable hidden;   ///< (n, h): that of the last step
};

/// Cho et al., arXiv:1406.1078, as in PyTorch, with the gates in the order r, z, n:
///
///     r, z = sigmoid(W x_t + b + U h_{t-1} + d),  n = tanh(W x_t + b + r · (U h_{t-1} + d))
///     h_t = (1 - z) · n + z · h_{t-1}
GruResult gru(const Variable& x, const RecurrentWeights& weights, const Variable& hidden = {},
              bool reverse = false);

}  // namespace lockstep

#pragma GCC visibility pop
