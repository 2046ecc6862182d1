#pragma once

#include <cstdint>

#include "lockstep/autograd/variable.hpp"

#pragma GCC visibility push(default)

// Differentiable normalizations of f32 and f64, whose statistics are those of a sample alone, in double
// precision and two passes. Weight and bias may be undefined; where they are not, ShapeError and DTypeError
// unless they fit. OptionError unless eps > 0.
namespace lockstep {

/// y = weight · (x - mean) / √(variance + eps) + bias over the last axes of x of (…, features…), with weight and
/// bias of shape `features`, which has at least one number: Ba, Kiros, Hinton, arXiv:1607.06450.
Variable layer_norm(const Variable& x, const Shape& features, const Variable& weight = {},
                    const Variable& bias = {}, double eps = 1e-5);

/// The same over the channels of each group, and all pixels of these, of x of (n, channels, …), with weight and
/// bias of (channels): Wu, He, arXiv:1803.08494. OptionError unless groups ≥ 1 divide the channels.
Variable group_norm(const Variable& x, std::int64_t groups, const Variable& weight = {},
                    const Variable& bias = {}, double eps = 1e-5);

}  // namespace lockstep

#pragma GCC visibility pop
