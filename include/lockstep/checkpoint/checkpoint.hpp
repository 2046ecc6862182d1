#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/state/state_dict.hpp"

// Checkpoints: one file with the state of any number of objects, keyed by name, independent of the
// number of ranks. docs/checkpoint_format.md describes the file.
namespace lockstep::checkpoint {

/// Something to save or load, and the name it goes by in the file.
struct Item {
  Item(std::string name, Stateful& object) : name(std::move(name)), object(&object) {}

  std::string name;
  Stateful* object;
};

/// Writes the state of all items to `path`. Collective; when it has returned, the file is complete
/// on disk. At any time before, and where it fails, `path` is what it was before or the complete
/// new file: it is written beside it, as `path`.tmp, and renamed.
///
/// State is replicated: rank 0 writes its own after all ranks have compared theirs with it. Throws
/// on all ranks: StateError, which names entries and ranks, where they have drifted apart;
/// CheckpointError where the file cannot be written; NameError where two items have one name.
void save(const std::filesystem::path& path, const Communicator& communicator,
          const std::vector<Item>& items);

/// Reads `path` on rank 0 and restores all items on all ranks, whatever number of ranks saved it.
/// Collective. The whole file, and that it fits every item on every rank, is checked before
/// anything changes. Throws on all ranks: CheckpointError where the file is missing, damaged, of a
/// newer format, or does not fit an item, with the item's name.
void load(const std::filesystem::path& path, const Communicator& communicator,
          const std::vector<Item>& items);

/// Writes one state dict to a file with the same guarantees; not collective.
void write_file(const std::filesystem::path& path, const StateDict& state);

/// Reads a file back, in memory of its own; not collective.
StateDict read_file(const std::filesystem::path& path);

}  // namespace lockstep::checkpoint
