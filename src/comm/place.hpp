#pragma once

#include <cstdint>
#include <string>

namespace lockstep::comm {

/// "after 1200 steps"; nothing for 0.
std::string describe_steps(std::int64_t steps);

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

  /// The name of this machine.
  static std::string host();
  /// "rank 1 on n1, after 1200 steps"
  static std::string describe(int rank);
};

}  // namespace lockstep::comm
