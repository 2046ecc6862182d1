#pragma once

#include <cstdint>
#include <vector>

#include "core/named_hash.hpp"
#include "state/records.hpp"

namespace lockstep {

/// XXH3 of a tensor's bits, shape and dtype aside.
std::uint64_t checksum(const Tensor& tensor);

/// Of all that a state is: its tree, its scalars, and dtypes, shapes and `checksums` of its tensors.
std::uint64_t hash_state(const FlatState& state, const std::vector<std::uint64_t>& checksums);

/// The entries of a state in depth-first order, dicts and lists included, by their paths. The hashes
/// are of all that they are: kind, place in the tree, and value, or dtype, shape and checksum of a
/// tensor. Equal lists are equal states. `checksums` are those of the state's tensors; with zeros, the
/// hashes leave out their numbers.
std::vector<NamedHash> hash_entries(const FlatState& state,
                                    const std::vector<std::uint64_t>& checksums);

}  // namespace lockstep
