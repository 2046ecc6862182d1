#pragma once

#include <cstdint>
#include <string>

namespace lockstep::comm {

/// What this process waits for, as reports of where each rank is have it. There is one for all threads, of which the last
/// word counts: most processes have one that waits.
class Place {
 public:
  /// `what` this process waits for, since a while.
  static void wait_for(std::string what, double seconds);
  /// It has come.
  static void go_on();
  /// The rounds of gradients so far.
  static void count_step() noexcept;

  struct State {
    std::string what;    ///< nothing where the process is in code of its own
    double seconds = 0;  ///< since when it waits for that
    std::int64_t steps = 0;
  };
  static State now();
};

}  // namespace lockstep::comm
