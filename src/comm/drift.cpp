#include "comm/drift.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <span>

namespace lockstep::comm {
namespace {

constexpr std::size_t most_names = 3;
constexpr std::size_t most_ranks = 8;

std::string pack(const std::vector<NamedHash>& entries) {
  std::string bytes;
  const auto append = [&bytes](std::uint64_t number) {
    bytes.append(reinterpret_cast<const char*>(&number), sizeof(number));
  };
  for (const NamedHash& entry : entries) {
    append(entry.hash);
    append(entry.name.size());
    bytes += entry.name;
  }
  return bytes;
}

std::vector<NamedHash> unpack(const std::string& bytes) {
  std::vector<NamedHash> entries;
  std::size_t position = 0;
  const auto take = [&] {
    std::uint64_t number = 0;
    std::memcpy(&number, bytes.data() + position, sizeof(number));
    position += sizeof(number);
    return number;
  };
  while (position < bytes.size()) {
    NamedHash& entry = entries.emplace_back();
    entry.hash = take();
    const auto length = static_cast<std::size_t>(take());
    entry.name = bytes.substr(position, length);
    position += length;
  }
  return entries;
}

// What each rank has under one name.
using Hashes = std::vector<std::optional<std::uint64_t>>;

// What most ranks have, or else rank 0.
std::optional<std::uint64_t> reference(const Hashes& hashes) {
  std::map<std::optional<std::uint64_t>, std::size_t> counts;
  for (const auto& hash : hashes) {
    if (2 * ++counts[hash] > hashes.size()) return hash;
  }
  return hashes.front();
}

std::string name_others(std::size_t count) {
  return fmt::format("{} other{}", count, count == 1 ? "" : "s");
}

std::string name_ranks(const std::vector<std::size_t>& ranks) {
  if (ranks.size() == 1) return fmt::format("rank {}", ranks.front());
  const std::size_t named = std::min(ranks.size(), most_ranks);
  std::string text = fmt::format("ranks {}", fmt::join(std::span(ranks).first(named), ", "));
  if (named < ranks.size()) text += " and " + name_others(ranks.size() - named);
  return text;
}

// Of one name, what differs on which ranks.
std::string describe(const std::string& name, const Hashes& hashes) {
  const std::optional<std::uint64_t> expected = reference(hashes);
  std::vector<std::size_t> alike, lacking, others;
  for (std::size_t rank = 0; rank < hashes.size(); ++rank) {
    (hashes[rank] == expected ? alike : hashes[rank] ? others : lacking).push_back(rank);
  }
  if (!expected) return fmt::format("'{}' is only on {}", name, name_ranks(others));
  if (others.empty()) {
    return fmt::format("'{}' is missing on {}, unlike {}", name, name_ranks(lacking),
                       name_ranks(alike));
  }
  std::string text =
      fmt::format("'{}' on {} differs from {}", name, name_ranks(others), name_ranks(alike));
  if (!lacking.empty()) text += fmt::format(", and is missing on {}", name_ranks(lacking));
  return text;
}

std::string describe(const std::vector<std::string>& packed) {
  std::map<std::string, Hashes> names;
  for (std::size_t rank = 0; rank < packed.size(); ++rank) {
    for (const NamedHash& entry : unpack(packed[rank])) {
      Hashes& hashes = names[entry.name];
      hashes.resize(packed.size());
      hashes[rank] = entry.hash;
    }
  }
  std::vector<std::string> found;
  std::size_t differing = 0;
  for (const auto& [name, hashes] : names) {
    const auto same = [&first = hashes.front()](const auto& hash) { return hash == first; };
    if (std::all_of(hashes.begin(), hashes.end(), same)) continue;
    if (++differing <= most_names) found.push_back(describe(name, hashes));
  }
  if (differing == 0) return "the order of entries";
  if (differing > most_names) found.push_back(name_others(differing - most_names));
  return fmt::format("{}", fmt::join(found, "; "));
}

}  // namespace

bool have_same(const Communicator& communicator, std::uint64_t number) {
  const auto own = std::bit_cast<std::int64_t>(number);
  std::int64_t bounds[] = {own, ~own};  // the least of all, and the inverse of the greatest
  communicator.all_reduce(std::span<std::int64_t>(bounds), ReduceOp::min);
  return bounds[0] == ~bounds[1];
}

std::string find_drift(const Communicator& communicator, const std::vector<NamedHash>& entries) {
  std::string own;
  communicator.agree([&] { own = pack(entries); });
  if (have_same(communicator, XXH3_64bits(own.data(), own.size()))) return {};
  const std::vector<std::string> all = communicator.gather(own);
  std::string drift;
  communicator.agree([&] {
    if (communicator.rank() == 0) drift = describe(all);
  });
  communicator.broadcast(drift);
  return drift;
}

}  // namespace lockstep::comm
