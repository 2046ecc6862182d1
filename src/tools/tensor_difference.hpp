#pragma once

#include <optional>

#include "lockstep/tensor/tensor.hpp"
#include "tools/state_tree.hpp"

namespace lockstep::tools {

/// How two tensors of one shape and dtype differ; null where they are equal.
///
/// Two numbers are equal if their bits are. With a tolerance, floating-point numbers are equal also
/// where |a - b| <= tolerance * m, with m the greatest finite magnitude in the two tensors; a number
/// that is not finite is equal to none but itself. The result is
///
///     {"numbers": how many there are, "differing": how many differ, "not_finite": of how many of
///      those a or b is not finite, "first": the first that differs,
///      "largest_absolute", "largest_relative": of the others, those that differ most}
///
/// where the last three are {"index", "a", "b"}, the two with their "difference" before: |a - b|, and
/// |a - b| / max(|a|, |b|). They are null where all that differ are not finite.
Json tensor_difference(const Tensor& a, const Tensor& b, std::optional<double> tolerance);

}  // namespace lockstep::tools
