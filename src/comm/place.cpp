#include "comm/place.hpp"

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

}  // namespace lockstep::comm
