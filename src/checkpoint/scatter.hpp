#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/format.hpp"
#include "lockstep/checkpoint/checkpoint.hpp"
#include "lockstep/comm/communicator.hpp"

namespace lockstep::checkpoint {

/// What a rank takes of a file.
struct Scattered {
  /// Bytes of the file's data that go to some place in memory; in the order of the file.
  struct Target {
    std::uint64_t begin = 0;  ///< in the data
    std::span<std::byte> memory;
  };

  /// Complete when all data were taken; none where the file lacks an item.
  std::vector<std::optional<StateDict>> of_items;
  LoadReport report;
  std::vector<Target> targets;
  std::uint64_t data_bytes = 0;
  std::size_t next = 0;  ///< target that is not complete

  /// The data from `begin` on, which come in order.
  void take(std::uint64_t begin, std::span<const std::byte> data);
};

/// Memory for what the items of this rank need of a file, the numbers in it arbitrary. CheckpointError
/// where it has not the items that the mode wants.
Scattered scattered(Header header, const std::vector<Item>& items, LoadMode mode,
                    const Communicator& communicator, const std::string& path);

/// Completes the report. CheckpointError where an item finds that the file does not fit: once all data are
/// taken, since it may look at numbers.
void check_load(Scattered& state, const std::vector<Item>& items, const LoadOptions& options,
                const std::string& path);

/// Gives the items their state.
void load_items(const Scattered& state, const std::vector<Item>& items, const LoadOptions& options);

}  // namespace lockstep::checkpoint
