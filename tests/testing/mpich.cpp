// What tests with MPICH need of UCX, through which its ranks talk.
#include <dlfcn.h>
#include <sched.h>

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

// MPI_Finalize of MPICH 4.0 asks each rank of another host for an answer here, which that does not give once it has its own
// answers; on busy cores one in four short programs waits for ever. It then destroys what it has connected anyway.
extern "C" void* ucp_disconnect_nb(void*) { return nullptr; }
