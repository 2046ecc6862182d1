#include "comm/kept_communicator.hpp"

#include "comm/check.hpp"

namespace lockstep::comm {
namespace {

int free_parked(MPI_Comm, int, void* parked, void*) {
  auto* communicator = static_cast<MPI_Comm*>(parked);
  const int code = MPI_Comm_free(communicator);
  delete communicator;
  return code;
}

// Hands a communicator to MPI_COMM_SELF, whose attributes are deleted first of all in MPI_Finalize.
void park(MPI_Comm communicator) {
  int key = MPI_KEYVAL_INVALID;
  if (MPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, free_parked, &key, nullptr) != MPI_SUCCESS) {
    return;
  }
  MPI_Comm_set_attr(MPI_COMM_SELF, key, new MPI_Comm(communicator));
  MPI_Comm_free_keyval(&key);
}

}  // namespace

KeptCommunicator::~KeptCommunicator() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (handle != MPI_COMM_NULL && !finalized) park(handle);
}

void KeptCommunicator::free() { check_mpi(MPI_Comm_free(&handle), "MPI_Comm_free"); }

}  // namespace lockstep::comm
