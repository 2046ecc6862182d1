#include "state/state_hashes.hpp"

#include <xxhash.h>

#include <array>
#include <cstddef>
#include <initializer_list>
#include <span>

#include "state/checksum.hpp"

namespace lockstep {
namespace {

std::uint64_t hash_of(std::initializer_list<std::uint64_t> numbers) {
  return XXH3_64bits(numbers.begin(), numbers.size() * sizeof(std::uint64_t));
}

std::uint64_t hash_of(const Tensor& tensor, std::uint64_t checksum) {
  std::uint64_t hash = hash_of({static_cast<std::uint64_t>(tensor.dtype()), checksum});
  for (const std::int64_t extent : tensor.shape()) {
    hash = hash_of({hash, static_cast<std::uint64_t>(extent)});
  }
  return hash;
}

}  // namespace

std::uint64_t checksum(const Tensor& tensor) {
  return checksum({static_cast<const std::byte*>(tensor.raw()), tensor.bytes()});
}

std::uint64_t hash_state(const FlatState& state, const std::vector<std::uint64_t>& checksums) {
  Checksum sum;
  const auto add = [&sum](const auto& numbers) {
    sum.add(std::as_bytes(std::span(numbers.begin(), numbers.end())));
  };
  for (const StateRecord& record : state.records) {
    add(std::array{record.number, std::uint64_t{record.kind}, std::uint64_t{record.key.size()},
                   std::uint64_t{record.string.size()}});
    add(record.key);
    add(record.string);
  }
  for (const Tensor& tensor : state.tensors) {
    add(std::array{static_cast<std::int64_t>(tensor.dtype()),
                   static_cast<std::int64_t>(tensor.shape().rank())});
    add(tensor.shape());
  }
  add(checksums);
  return sum.take();
}

std::vector<NamedHash> hash_entries(const FlatState& state,
                                    const std::vector<std::uint64_t>& checksums) {
  std::vector<NamedHash> entries;
  entries.reserve(state.records.size());
  PathWalk walk;
  for (const StateRecord& record : state.records) {
    const std::string& path = walk.next(record);
    if (walk.depth() == 0) continue;  // the outermost dict
    std::uint64_t content = 0;
    if (record.kind == StateRecord::tensor) {
      const auto number = static_cast<std::size_t>(record.number);
      content = hash_of(state.tensors[number], checksums[number]);
    } else if (record.kind == StateRecord::text) {
      content = XXH3_64bits(record.string.data(), record.string.size());
    } else if (record.kind != StateRecord::dict && record.kind != StateRecord::list) {
      content = record.number;
    }
    entries.push_back({path, hash_of({record.kind, walk.depth(), content})});
  }
  return entries;
}

}  // namespace lockstep
