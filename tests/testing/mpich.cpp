// What tests with MPICH need of UCX, through which its ranks talk.
#include <dlfcn.h>
#include <sched.h>
#include <unistd.h>

namespace {

template <class Function>
Function* original(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

// MPICH waits by calling this over and over. Its ranks that share a core would keep each other from their work, for
// milliseconds at each call of MPI, and no setting has them yield.
extern "C" unsigned ucp_worker_progress(void* worker) {
  static const auto progress = original<unsigned(void*)>("ucp_worker_progress");
  const unsigned events = progress(worker);
  if (events == 0) sched_yield();
  return events;
}

// What mpi::Environment does before MPI_Finalize, for tests in which it is the host that ends MPI.
extern "C" void* ucp_disconnect_nb(void* endpoint) {
  static const auto disconnect = original<void*(void*)>("ucp_disconnect_nb");
  static bool first = true;
  if (first) usleep(50'000);
  first = false;
  return disconnect(endpoint);
}
