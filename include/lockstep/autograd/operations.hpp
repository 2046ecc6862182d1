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
/// max(x, 0); the derivative at 0 is 0.
Variable relu(const Variable& x);
Variable tanh(const Variable& x);
Variable sigmoid(const Variable& x);
/// x · Φ(x) with Φ the normal distribution function, by erf: Hendrycks, Gimpel, arXiv:1606.08415.
Variable gelu(const Variable& x);

/// Sum of all elements, and their mean; the mean of nothing is 0.
Variable sum(const Variable& x);
Variable mean(const Variable& x);

/// The same elements in another shape of the same size.
Variable reshape(const Variable& x, const Shape& shape);

/// Zeroes each element with probability p, drawn by the key's number of that element, and scales
/// the others by 1 / (1 - p). OptionError unless 0 ≤ p < 1.
Variable dropout(const Variable& x, double p, RandomKey key);

/// Mean over all elements of (prediction - target)².
Variable mean_squared_error(const Variable& prediction, const Variable& target);

/// Mean over the rows of -log softmax(logits)[label], with logits of (rows, classes) and labels of
/// (rows) as i64 in [0, classes); DataError for a label outside. The mean over no rows is 0.
Variable cross_entropy(const Variable& logits, const Tensor& labels);

}  // namespace lockstep

#pragma GCC visibility pop
