#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lockstep::comm {

/// What a report says of a rank.
struct RankState {
  int rank = 0;
  std::string host;
  std::string
      what;  ///< that it waits for, or why it does not answer; nothing where it is in code of its own
  double seconds = 0;      ///< since when it waits
  std::int64_t steps = 0;  ///< that it has made
  bool answers = true;
  std::vector<std::string> stack;  ///< the innermost function first
};

/// Why one does not answer, whose process is there.
inline constexpr std::string_view still_runs = "its process runs";

/// "ranks 0, 2-5"
std::string list_ranks(const std::vector<const RankState*>& ranks);

/// A line for each function that a rank is in.
std::string describe_stack(const std::vector<std::string>& stack);

/// A line for all ranks of which the same can be said, with the functions that they are in below it. Sorted by rank.
std::string describe_ranks(std::string_view headline, const std::vector<RankState>& ranks);

}  // namespace lockstep::comm
