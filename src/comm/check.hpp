#pragma once

#include <mpi.h>

#include <string>

#include "lockstep/core/error.hpp"

namespace lockstep {

/// Throws MpiError with the code's text where an MPI call did not succeed.
inline void check_mpi(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "unknown error";
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw MpiError(std::string(call) + " failed: " + text);
}

}  // namespace lockstep
