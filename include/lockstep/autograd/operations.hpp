#pragma once

#include "lockstep/autograd/variable.hpp"
#include "lockstep/tensor/activation.hpp"
#include "lockstep/tensor/random.hpp"

#pragma GCC visibility push(default)

// Differentiable operations on f32 and f64. Two operands must agree in shape and dtype (ShapeError,
// DTypeError); nothing is broadcast except the scalars named below.
namespace lockstep {

Variable operator+(const Variable& a, const Variable& b);
Variable operator-(const Variable& a, const Variable& b);
Variable operator*(const Variable& a, const Variable& b);
Variable operator/(const Variable& a, const Variable& b);
Variable operator-(const Variable& x);

Variable operator+(const Variable& x, double scalar);
Variable operator+(double scalar, const Variable& x);
Variable operator-(const Variable& x, double scalar);
Variable operator-(double scalar, const Variable& x);
Variable operator*(const Variable& x, double scalar);
Variable operator*(double scalar, const Variable& x);
Variable operator/(const Variable& x, double scalar);

/// Product of an m × k and a k × n matrix.
Variable matmul(const Variable& a, const Variable& b);

/// y = f(x · weightᵀ + bias), with x of (…, in), weight of (out, in), and bias of (out) or undefined.
/// With f it has the bits of the two operations one after the other.
Variable linear(const Variable& x, const Variable& weight, const Variable& bias,
                Activation f = Activation::none);

Variable exp(const Variable& x);
Variable log(const Variable& x);

/// Sum of all elements, and their mean; the mean of nothing is 0.
Variable sum(const Variable& x);
Variable mean(const Variable& x);

/// Zeroes each element with probability p, drawn by the key's number of that element, and scales
/// the others by 1 / (1 - p). OptionError unless 0 ≤ p < 1.
Variable dropout(const Variable& x, double p, RandomKey key);

}  // namespace lockstep

#pragma GCC visibility pop
