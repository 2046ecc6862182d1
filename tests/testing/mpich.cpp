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

// In MPI_Finalize ranks on different hosts take leave by a message that the other one answers: until it has all its own
// answers itself, and then never again. One that answers while it is still in the call before may then be alone when
// it takes its leave, and would wait for ever. So all come back from that call first.
extern "C" void* ucp_disconnect_nb(void* endpoint) {
  static const auto disconnect = original<void*(void*)>("ucp_disconnect_nb");
  static bool first = true;
  if (first) usleep(50'000);
  first = false;
  return disconnect(endpoint);
}
