#pragma once

#include <mpi.h>

#include <cstddef>
#include <string>
#include <vector>

#include "comm/check.hpp"

// Collective calls on which those of Communicator are built themselves.
namespace lockstep::comm {

inline int minimum(MPI_Comm communicator, int value) {
  check_mpi(MPI_Allreduce(MPI_IN_PLACE, &value, 1, MPI_INT, MPI_MIN, communicator),
            "MPI_Allreduce");
  return value;
}

/// The text of `root` on all ranks.
inline std::string broadcast(MPI_Comm communicator, std::string text, int root) {
  auto size = static_cast<int>(text.size());
  check_mpi(MPI_Bcast(&size, 1, MPI_INT, root, communicator), "MPI_Bcast");
  text.resize(static_cast<std::size_t>(size));
  check_mpi(MPI_Bcast(text.data(), size, MPI_CHAR, root, communicator), "MPI_Bcast");
  return text;
}

/// Every rank's value, in rank order, on all of them. T is plain data.
template <class T>
std::vector<T> all_gather(MPI_Comm communicator, const T& value) {
  int size = 0;
  check_mpi(MPI_Comm_size(communicator, &size), "MPI_Comm_size");
  std::vector<T> values(static_cast<std::size_t>(size));
  constexpr int bytes = sizeof(T);
  check_mpi(MPI_Allgather(&value, bytes, MPI_BYTE, values.data(), bytes, MPI_BYTE, communicator),
            "MPI_Allgather");
  return values;
}

}  // namespace lockstep::comm
