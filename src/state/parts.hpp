#pragma once

#include <string>

#include "lockstep/state/state_dict.hpp"

namespace lockstep {

/// Moves the parts of tensors to a dict of their own, with the dicts that they are in. What stays
/// in their place, a text, is the same on all ranks that have parts of the same tensors.
StateDict split_parts(StateDict& state);

/// Numbers [begin, begin + size) of a tensor of that shape and dtype, as one axis: of an entry that
/// is the whole tensor, or exactly this part. ShapeError, DTypeError or StateError, naming `what`,
/// where it is something else. `convert_dtype` as in LoadOptions.
Tensor part_of(const StateValue& found, const Shape& shape, DType dtype, std::int64_t begin,
               std::int64_t size, bool convert_dtype, const std::string& what);

}  // namespace lockstep
