#pragma once

#include <pthread.h>

#include <csignal>
#include <span>
#include <string>
#include <vector>

namespace lockstep::comm {

/// The functions of a stack that a signal handler has taken, the innermost first, without the handler, up to main: those that have
/// names in a dynamic symbol table, and for the others the file and offset that addr2line takes.
std::vector<std::string> function_names(std::span<void* const> frames);

/// Looks at the stack of one thread from another, whatever that one does. One a process at a time, which has the handler of
/// SIGRTMIN + 1 until it goes.
class StackProbe {
 public:
  /// Of the thread that makes this.
  StackProbe();
  ~StackProbe();
  StackProbe(const StackProbe&) = delete;
  StackProbe& operator=(const StackProbe&) = delete;

  /// The functions that the thread is in. Waits 100 ms at most, and has none then.
  std::vector<std::string> capture() const;

 private:
  pthread_t thread_ = pthread_self();
  struct sigaction before_ {};
};

}  // namespace lockstep::comm
