#pragma once

#include <mpi.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/testing/mpi_test.hpp"

namespace lockstep::testing {

/// Some ranks of the test, with a communicator of their own in which they are in the order of
/// `members`. Made by all ranks of the test.
struct RankGroup {
  std::vector<int> members;           // ranks of the test
  std::optional<Communicator> ranks;  // where this rank is a member

  explicit RankGroup(std::vector<int> list, const CommunicatorOptions& options = {})
      : members(std::move(list)) {
    const auto place = std::find(members.begin(), members.end(), world().rank());
    const bool is_member = place != members.end();
    MPI_Comm part = MPI_COMM_NULL;
    MPI_Comm_split(world().handle(), is_member ? 0 : MPI_UNDEFINED,
                   static_cast<int>(place - members.begin()), &part);
    if (!is_member) return;
    ranks.emplace(part, options);
    MPI_Comm_free(&part);
  }

  bool is_member() const { return ranks.has_value(); }
  void close() {
    if (ranks) ranks->close();
  }
};

/// Ranks begin, begin + step, … below `end`.
inline std::vector<int> every(int step, int begin, int end) {
  std::vector<int> list;
  for (int rank = begin; rank < end; rank += step) list.push_back(rank);
  return list;
}

}  // namespace lockstep::testing
