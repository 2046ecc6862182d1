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

/// Whether this thread may call MPI: not after MPI_Finalize, and up to MPI_THREAD_FUNNELED only as the main
/// thread.
inline bool may_call_mpi() noexcept {
  int finalized = 0, level = MPI_THREAD_MULTIPLE, is_main = 1;
  MPI_Finalized(&finalized);
  if (finalized != 0) return false;
  MPI_Query_thread(&level);
  if (level < MPI_THREAD_SERIALIZED) MPI_Is_thread_main(&is_main);
  return is_main != 0;
}

/// What an error says where that is not so.
inline std::string describe_no_mpi(const char* what, int rank) {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (finalized != 0) {
    return std::string(what) + " on rank " + std::to_string(rank) + " after MPI_Finalize";
  }
  return std::string(what) + " on a thread of rank " + std::to_string(rank) +
         " that must not call MPI, which was initialised for calls of its main thread alone: see "
         "MPI_Init_thread";
}

}  // namespace lockstep
