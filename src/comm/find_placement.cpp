#include "comm/find_placement.hpp"

#include <sched.h>

#include <cstring>
#include <map>

#include "comm/raw.hpp"

namespace lockstep::comm {
namespace {

// Which node a rank is on: the lowest rank of its machine, and the number that it has given.
struct Address {
  int machine = 0;
  int has_number = 0;
  int number = 0;

  friend auto operator<=>(const Address&, const Address&) = default;
};

// Whether the ranks of a machine may run on fewer cores than they are. Collective over them.
bool is_crowded(const Communicator& ranks, MPI_Comm machine) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  // It fails where there are more cores than the set has room for, which is enough.
  if (sched_getaffinity(0, sizeof(cores), &cores) != 0) std::memset(&cores, 0xff, sizeof(cores));
  std::vector<cpu_set_t> all{cores};
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Iallreduce(MPI_IN_PLACE, all.data(), sizeof(cpu_set_t), MPI_BYTE, MPI_BOR, machine,
                           &request),
            "MPI_Iallreduce");
  Wait(ranks).finish(request, all, "the ranks of this machine to say on which cores they are");
  int size = 0;
  check_mpi(MPI_Comm_size(machine, &size), "MPI_Comm_size");
  return CPU_COUNT(&all[0]) < size;
}

}  // namespace

Placement find_placement(const Communicator& ranks) {
  const int own = ranks.rank();
  const std::optional<int> node = ranks.options().node;
  // The split cannot be given up, so that all ranks are waited for before.
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Ibarrier(ranks.handle(), &request), "MPI_Ibarrier");
  Wait(ranks).finish(request, "all ranks to say which machine they are on");
  MPI_Comm machine = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(ranks.handle(), MPI_COMM_TYPE_SHARED, own, MPI_INFO_NULL, &machine),
            "MPI_Comm_split_type");
  Placement placement;
  placement.crowded = is_crowded(ranks, machine);
  const Address address{.machine = minimum(ranks, machine, own),
                        .has_number = node ? 1 : 0,
                        .number = node.value_or(0)};
  check_mpi(MPI_Comm_free(&machine), "MPI_Comm_free");

  std::map<Address, std::size_t> known;
  const std::vector<Address> addresses = all_gather(ranks, address);
  for (std::size_t rank = 0; rank < addresses.size(); ++rank) {
    const auto [entry, added] = known.try_emplace(addresses[rank], placement.nodes.size());
    if (added) placement.nodes.emplace_back();
    std::vector<int>& ranks = placement.nodes[entry->second];
    if (static_cast<int>(rank) == own) {
      placement.node = static_cast<int>(entry->second);
      placement.node_rank = static_cast<int>(ranks.size());
    }
    ranks.push_back(static_cast<int>(rank));
  }
  return placement;
}

}  // namespace lockstep::comm
