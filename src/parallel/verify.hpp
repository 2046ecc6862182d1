#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/tensor/tensor.hpp"

namespace lockstep {

/// What must be the same on all ranks of one tensor.
struct TensorSignature {
  std::string name;
  DType dtype;
  Shape shape;
};

/// Throws on all ranks, naming the first difference and the ranks, unless all have the same list, of
/// which it returns a hash. Collective. `what` names the list's items: "parameter".
std::uint64_t verify_signatures(const Communicator& communicator, const char* what,
                                const std::vector<TensorSignature>& signatures);

}  // namespace lockstep
