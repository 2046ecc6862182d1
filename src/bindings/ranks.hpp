#pragma once

#include "bindings/handles.hpp"
#include "lockstep/comm/communicator.hpp"

namespace lockstep::bindings {

struct CommunicatorObject : ObjectOf<CommunicatorObject> {
  static constexpr std::string_view name = "communicator";

  CommunicatorObject(MPI_Comm original, const CommunicatorOptions& options)
      : communicator(original, options) {}

  Communicator communicator;
};

/// The communicator behind a handle.
inline Communicator communicator_of(const void* handle) {
  return get<CommunicatorObject>(handle)->communicator;
}

}  // namespace lockstep::bindings
