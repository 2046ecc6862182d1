#include "lockstep/parallel/replica_check.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "comm/drift.hpp"
#include "lockstep/core/error.hpp"
#include "state/parts.hpp"
#include "state/state_hashes.hpp"

namespace lockstep {

ReplicaCheck::ReplicaCheck(const Communicator& communicator, std::vector<Item> items,
                           const ReplicaCheckOptions& options)
    : communicator_(communicator), items_(std::move(items)), every_(options.every) {
  std::vector<NamedHash> entries{{"every", static_cast<std::uint64_t>(every_)}};
  communicator_.agree([&] {
    if (every_ < 1) {
      throw OptionError(fmt::format("replica check: expected every >= 1, found {}", every_));
    }
    if (items_.empty()) throw OptionError("a replica check got no items");
    std::set<std::string> names;
    for (const Item& item : items_) {
      if (!names.insert(item.name).second) {
        throw NameError(fmt::format("two items of the replica check are called '{}'", item.name));
      }
    }
    for (const std::string& name : names) entries.push_back({fmt::format("item {}", name)});
  });
  const std::string difference = comm::find_drift(communicator_, entries);
  if (!difference.empty()) {
    throw_collective({ErrorKind::option,
                      fmt::format("the ranks check their replicas differently: {}", difference)});
  }
}

void ReplicaCheck::step() {
  if ((steps_ + 1) % every_ == 0) compare(steps_ + 1);
  ++steps_;
}

void ReplicaCheck::check() { compare(steps_); }

void ReplicaCheck::compare(std::int64_t step) {
  std::vector<NamedHash> entries;
  communicator_.agree([&] {
    StateDict state;
    for (const Item& item : items_) state[item.name] = item.object->state_dict();
    split_parts(state);  // of which each rank has its own
    const FlatState flat = flatten(state);
    std::vector<std::uint64_t> checksums;
    for (const Tensor& tensor : flat.tensors) checksums.push_back(checksum(tensor));
    entries = hash_entries(flat, checksums);
    entries.push_back({"steps of the replica check", static_cast<std::uint64_t>(step)});
  });
  const std::string drift = comm::find_drift(communicator_, entries);
  if (!drift.empty()) {
    const std::string since =
        last_alike_ < 0 ? "the start" : fmt::format("step {}", std::min(last_alike_ + 1, step));
    std::string message = fmt::format("the replicas differ at step {}, and may have since {}: {}",
                                      step, since, drift);
    communicator_.broadcast(message);  // ranks may have counted different steps
    throw_collective({ErrorKind::state, message});
  }
  last_alike_ = step;
}

StateDict ReplicaCheck::state_dict() const {
  return {{"steps", steps_}, {"last_alike", last_alike_}};
}

void ReplicaCheck::check_restore(const StateDict& source) const {
  const std::int64_t steps = source.at("steps").as_int();
  const std::int64_t last_alike = source.at("last_alike").as_int();
  if (last_alike < -1 || last_alike > steps || steps < 0) {
    throw StateError(
        fmt::format("state of a replica check: expected -1 <= last_alike <= steps, found {} and {}",
                    last_alike, steps));
  }
}

void ReplicaCheck::restore(const StateDict& source) {
  check_restore(source);
  steps_ = source.at("steps").as_int();
  last_alike_ = source.at("last_alike").as_int();
}

}  // namespace lockstep
