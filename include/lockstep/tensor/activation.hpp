#pragma once

#pragma GCC visibility push(default)

namespace lockstep {

/// A function of each element: x itself, max(x, 0), tanh x, or 1 / (1 + exp(-x)).
enum class Activation { none, relu, tanh, sigmoid };

}  // namespace lockstep

#pragma GCC visibility pop
