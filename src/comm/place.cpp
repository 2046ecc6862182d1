#include "comm/place.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <mutex>
#include <utility>

namespace lockstep::comm {
namespace {

using PlaceClock = std::chrono::steady_clock;

struct Waiting {
  std::mutex mutex;
  std::string what;
  PlaceClock::time_point since;
};

Waiting& waiting() {
  static Waiting place;
  return place;
}

std::atomic<std::int64_t> steps = 0;

}  // namespace

std::string describe_steps(std::int64_t steps) {
  return steps == 0 ? "" : fmt::format("after {} step{}", steps, steps == 1 ? "" : "s");
}

void Place::wait_for(std::string what, double seconds) {
  Waiting& place = waiting();
  const std::lock_guard lock(place.mutex);
  place.what = std::move(what);
  place.since = PlaceClock::now() - std::chrono::duration_cast<PlaceClock::duration>(
                                        std::chrono::duration<double>(seconds));
}

void Place::go_on() {
  Waiting& place = waiting();
  const std::lock_guard lock(place.mutex);
  place.what.clear();
}

void Place::count_step() noexcept { steps.fetch_add(1, std::memory_order_relaxed); }

Place::State Place::now() {
  Waiting& place = waiting();
  const std::lock_guard lock(place.mutex);
  const std::chrono::duration<double> time = PlaceClock::now() - place.since;
  return {place.what, place.what.empty() ? 0 : time.count(), steps.load(std::memory_order_relaxed)};
}

std::string Place::host() {
  std::array<char, 256> name{"?"};
  gethostname(name.data(), name.size() - 1);
  return name.data();
}

std::string Place::describe(int rank) {
  const std::string made = describe_steps(steps);
  return fmt::format("rank {} on {}{}{}", rank, host(), made.empty() ? "" : ", ", made);
}

}  // namespace lockstep::comm
