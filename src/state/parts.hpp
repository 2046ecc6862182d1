#pragma once

#include "lockstep/state/state_dict.hpp"

namespace lockstep {

/// Moves the parts of tensors to a dict of their own, with the dicts that they are in. What stays in their
/// place, a text, is the same on all ranks that have parts of the same tensors.
StateDict split_parts(StateDict& state);

}  // namespace lockstep
