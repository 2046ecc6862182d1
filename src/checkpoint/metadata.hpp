#pragma once

#include <string>

#include "lockstep/state/state_dict.hpp"

namespace lockstep::checkpoint {

/// Entries of a file that are no items by these names: the metadata, and "rank.N", with the items of
/// rank N.
inline constexpr const char* metadata_name = "metadata";
inline constexpr const char* rank_prefix = "rank.";
std::string rank_name(int rank);

/// Now, or what the environment says, in UTC. OptionError where that is no time.
std::string time_of_save();

/// What is saved beside the state. OptionError where `own` has tensors, or names that are not its to
/// give.
StateDict make_metadata(const StateDict& own, int ranks, const std::string& time);

/// Takes what is no item from a file's state; empty where it has none.
StateDict take_metadata(StateDict& state);
/// NameError where a state that is to be written has an entry of that name.
void check_no_metadata(const StateDict& state);

}  // namespace lockstep::checkpoint
