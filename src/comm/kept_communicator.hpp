#pragma once

#include <mpi.h>

namespace lockstep::comm {

/// A communicator that this library has made, which is freed in MPI_Finalize where it is not freed before: a
/// destructor must not wait for other ranks. All that uses it has a share in it.
class KeptCommunicator {
 public:
  KeptCommunicator() = default;
  ~KeptCommunicator();
  KeptCommunicator(const KeptCommunicator&) = delete;
  KeptCommunicator& operator=(const KeptCommunicator&) = delete;

  /// Collective.
  void free();

  MPI_Comm handle = MPI_COMM_NULL;
  /// False once a call or a reduction was given up, whose messages may still come: then only MPI_Finalize may free it,
  /// since MPI gives the place of a freed communicator to the next.
  bool settled = true;
};

}  // namespace lockstep::comm
