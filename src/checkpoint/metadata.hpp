#pragma once

#include <string>

#include "lockstep/state/state_dict.hpp"

namespace lockstep::checkpoint {

/// Entries of a file that are no items by these names: the metadata, and "rank.N", with the items of
/// rank N.
inline constexpr const char* metadata_name = "metadata";
inline constexpr const char* rank_prefix = "rank.";
std::string rank_name(int rank);

/// What is saved beside the state. OptionError where `own` has tensors, or names that are not its to
/// give.
StateDict make_metadata(const StateDict& own, int ranks);

/// That of a file's state; empty where it has none.
StateDict metadata_of(const StateDict& state);
StateDict without_metadata(const StateDict& state);
/// NameError where a state that is to be written has an entry of that name.
void check_no_metadata(const StateDict& state);

}  // namespace lockstep::checkpoint
