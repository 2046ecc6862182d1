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
bool is_crowded(MPI_Comm machine) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  // It fails where there are more cores than the set has room for, which is enough.
  if (sched_getaffinity(0, sizeof(cores), &cores) != 0) std::memset(&cores, 0xff, sizeof(cores));
  check_mpi(MPI_Allreduce(MPI_IN_PLACE, &cores, sizeof(cores), MPI_BYTE, MPI_BOR, machine),
            "MPI_Allreduce");
  int ranks = 0;
  check_mpi(MPI_Comm_size(machine, &ranks), "MPI_Comm_size");
  return CPU_COUNT(&cores) < ranks;
}

}  // namespace

Placement find_placement(MPI_Comm communicator, std::optional<int> node) {
  int own = 0;
  check_mpi(MPI_Comm_rank(communicator, &own), "MPI_Comm_rank");
  MPI_Comm machine = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(communicator, MPI_COMM_TYPE_SHARED, own, MPI_INFO_NULL, &machine),
            "MPI_Comm_split_type");
  Placement placement;
  placement.crowded = is_crowded(machine);
  const Address address{
      .machine = minimum(machine, own), .has_number = node ? 1 : 0, .number = node.value_or(0)};
  check_mpi(MPI_Comm_free(&machine), "MPI_Comm_free");

  std::map<Address, std::size_t> known;
  const std::vector<Address> addresses = all_gather(communicator, address);
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
