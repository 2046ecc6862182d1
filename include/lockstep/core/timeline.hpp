#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

#pragma GCC visibility push(default)

// What this process does when, as a trace for chrome://tracing or https://ui.perfetto.dev: the JSON
// array of the Trace Event Format, without its last bracket, which it does not need. start_timeline()
// in parallel/timeline.hpp begins one for all ranks.
namespace lockstep::timeline {

namespace detail {
extern std::atomic<bool> recording;
}

/// Whether anything is recorded. All other functions do nothing where it is not.
inline bool enabled() noexcept { return detail::recording.load(std::memory_order_relaxed); }

/// Records from now on, at time 0, as the row of this rank, and appends to a file that begins with
/// "[": now and then, in stop(), and when the process ends in order. DataError where it cannot be
/// opened, StateError where recording is under way.
void start(const std::string& file, int rank);
void stop() noexcept;

/// Microseconds since start().
double now() noexcept;

/// Something took from `begin` to `end`. What is recorded of one rank must be nested or apart.
void record(std::string_view name, double begin, double end);
/// The same for what may overlap with others of other names.
void record_overlapping(std::string_view name, double begin, double end);

/// Records its own life.
class Span {
 public:
  explicit Span(const char* name) noexcept : name_(name), begin_(enabled() ? now() : -1) {}
  ~Span() {
    if (begin_ >= 0) record(name_, begin_, now());
  }
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;

 private:
  const char* name_;
  double begin_;
};

}  // namespace lockstep::timeline

#pragma GCC visibility pop
