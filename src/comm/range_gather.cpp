#include "comm/range_gather.hpp"

#include <algorithm>
#include <cstring>

#include "comm/check.hpp"
#include "comm/wait.hpp"
#include "core/stream_copy.hpp"

namespace lockstep::comm {
namespace {

constexpr int gather_tag = 950;
constexpr std::size_t longest_message = std::size_t{1} << 30;
// What does not stay in the cache until it is used is not read there before it is written.
constexpr std::size_t cached_bytes = std::size_t{8} << 20;

// Calls use(begin, bytes) for each message that ranges take.
template <class Use>
void for_messages(const RangeGather::Ranges& ranges, const Use& use) {
  for (const auto& [begin, end] : ranges) {
    for (std::size_t at = begin; at < end; at += longest_message) {
      use(at, std::min(longest_message, end - at));
    }
  }
}

}  // namespace

RangeGather::RangeGather(const Communicator& communicator, std::size_t bytes, bool one_per_node)
    : communicator_(communicator),
      one_per_node_(one_per_node),
      memory_(communicator, one_per_node ? 0 : bytes, one_per_node ? bytes : 0),
      first_(static_cast<std::size_t>(communicator.size())) {
  const Placement& placement = memory_.placement();
  const std::size_t neighbours = placement.neighbours().size();
  for (const std::vector<int>& ranks : placement.nodes) {
    for (std::size_t place = 0; place < ranks.size(); ++place) {
      first_[static_cast<std::size_t>(ranks[place])] = static_cast<int>(place % neighbours);
    }
  }
}

void RangeGather::gather(std::span<const Ranges> of_ranks) {
  communicator_.barrier();
  if (memory_.placement().nodes.size() > 1) {
    exchange_nodes(of_ranks);
    communicator_.barrier();
  }
  copy_from_neighbours(of_ranks);
  communicator_.barrier();
}

// The ranges of each rank go to one rank of each other node.
void RangeGather::exchange_nodes(std::span<const Ranges> of_ranks) {
  const Placement& placement = memory_.placement();
  const MPI_Comm handle = communicator_.handle();
  const auto own = static_cast<std::size_t>(communicator_.rank());
  const auto place = static_cast<std::size_t>(placement.node_rank);
  std::byte* const bytes = memory();
  requests_.clear();
  for (std::size_t node = 0; node < placement.nodes.size(); ++node) {
    if (static_cast<int>(node) == placement.node) continue;
    const std::vector<int>& ranks = placement.nodes[node];
    for (const int rank : ranks) {
      const auto from = static_cast<std::size_t>(rank);
      if (first_[from] != placement.node_rank) continue;
      for_messages(of_ranks[from], [&](std::size_t begin, std::size_t size) {
        check_mpi(MPI_Irecv(bytes + begin, static_cast<int>(size), MPI_BYTE, rank, gather_tag,
                            handle, &requests_.emplace_back(MPI_REQUEST_NULL)),
                  "MPI_Irecv");
      });
    }
    for_messages(of_ranks[own], [&](std::size_t begin, std::size_t size) {
      check_mpi(
          MPI_Isend(bytes + begin, static_cast<int>(size), MPI_BYTE, ranks[place % ranks.size()],
                    gather_tag, handle, &requests_.emplace_back(MPI_REQUEST_NULL)),
          "MPI_Isend");
    });
  }
  Wait wait(communicator_.rank(), communicator_.options().deadline, placement.crowded);
  for (int done = 0;;) {
    check_mpi(MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done,
                          MPI_STATUSES_IGNORE),
              "MPI_Testall");
    if (done != 0) break;
    if (!wait.pause()) wait.give_up("values from other nodes");
    wait.tell([] { return "values from other nodes"; });
  }
}

void RangeGather::copy(const Range& range, int from, int to) {
  const std::span target(segment(to) + range.begin, range.end - range.begin);
  const std::span<const std::byte> source(segment(from) + range.begin, target.size());
  if (memory_.own().size() > cached_bytes) {
    stream_copy(target, source);
  } else {
    std::memcpy(target.data(), source.data(), target.size());
  }
}

void RangeGather::copy_to_neighbours(const Range& range) {
  if (one_per_node_) return;
  const Placement& placement = memory_.placement();
  for (int place = 0; place < static_cast<int>(placement.neighbours().size()); ++place) {
    if (place != placement.node_rank) copy(range, placement.node_rank, place);
  }
}

void RangeGather::copy_from_neighbours(std::span<const Ranges> of_ranks) {
  if (one_per_node_) return;
  const int own = memory_.placement().node_rank;
  for (std::size_t rank = 0; rank < of_ranks.size(); ++rank) {
    if (first_[rank] == own) continue;
    for (const Range& range : of_ranks[rank]) copy(range, first_[rank], own);
  }
}

}  // namespace lockstep::comm
