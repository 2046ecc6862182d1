// MPICH waits by calling this function of UCX over and over. Its ranks that share a core would keep each other from
// their work, for milliseconds at each call of MPI, and no setting has them yield.
#include <dlfcn.h>
#include <sched.h>

extern "C" unsigned ucp_worker_progress(void* worker) {
  using Function = unsigned (*)(void*);
  static const auto original = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "ucp_worker_progress"));
  const unsigned events = original(worker);
  if (events == 0) sched_yield();
  return events;
}
