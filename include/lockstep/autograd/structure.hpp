#pragma once

#include <cstdint>
#include <vector>

#include "lockstep/autograd/variable.hpp"

#pragma GCC visibility push(default)

// Differentiable operations that move elements, of f32 and f64.
namespace lockstep {

/// The same elements in another shape of the same size.
Variable reshape(const Variable& x, const Shape& shape);

/// Those of begin ≤ index < end along an axis. ShapeError for an axis or indices that there are not.
Variable slice(const Variable& x, std::size_t axis, std::int64_t begin, std::int64_t end);

/// One after another along an axis. ShapeError unless there is at least one, and they agree in all other axes;
/// DTypeError for several dtypes.
Variable concatenate(const std::vector<Variable>& parts, std::size_t axis);

/// Axis i of the result is axis order[i] of x. ShapeError unless each axis is there once.
Variable permute(const Variable& x, const std::vector<std::size_t>& order);

/// The rows of a weight of (count, features) that the indices name: of shape (indices' axes…, features). Indices
/// are i64: DataError for one outside [0, count).
Variable embedding(const Tensor& indices, const Variable& weight);

}  // namespace lockstep

#pragma GCC visibility pop
