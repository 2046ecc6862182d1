#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/named_hash.hpp"
#include "lockstep/comm/communicator.hpp"

namespace lockstep::comm {

/// Whether all ranks have the same number. Collective; one small all-reduce.
bool have_same(const Communicator& communicator, std::uint64_t number);

/// Where all ranks have the same entries in the same order, nothing. Else, on all ranks, a text that names
/// the first few that differ, and the ranks that differ from the others: from most of them, or where there
/// is no majority, from rank 0. Collective; costs one small all-reduce where nothing differs.
std::string find_drift(const Communicator& communicator, const std::vector<NamedHash>& entries);

}  // namespace lockstep::comm
