#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/state/stateful.hpp"

#pragma GCC visibility push(default)

// Checkpoints: one file with the state of any number of objects, keyed by name, independent of the
// number of ranks. docs/checkpoint_format.md describes the file.
namespace lockstep::checkpoint {

/// Which ranks have the state of an item.
enum class ItemScope {
  /// All have the same. They are compared before a save, and rank 0 writes its own. Of a tensor that is a
  /// TensorPart each rank has a part; parts that several have must be equal.
  replicated,
  /// Some ranks have what others have not, such as the parameters of an expert: what is written is all
  /// that any of them has. What several have must be equal. A load gives all of it to each rank.
  distributed,
  /// Each rank has its own, such as a stream of random numbers. Rank N's is saved under "rank.N", and a
  /// load wants as many ranks.
  each_rank,
};

/// Something to save or load, and the name it goes by in the file. Names that begin with "rank." are
/// those of ranks, and "metadata" is that of the metadata.
struct Item {
  Item(std::string name, Stateful& object, ItemScope scope = ItemScope::replicated)
      : name(std::move(name)), object(&object), scope(scope) {}

  std::string name;
  Stateful* object;
  ItemScope scope;
};

struct SaveOptions {
  /// Memory of rank 0 for what other ranks send it, however much that is in all.
  std::size_t buffer_bytes = std::size_t{64} << 20;
  /// Texts, numbers and the like about the checkpoint, alike on all ranks, saved beside the state. A save
  /// adds "lockstep", the version of the library; "ranks", their number; and "time", in UTC, as
  /// "2026-01-31T12:00:00Z", or that of SOURCE_DATE_EPOCH, by which files of equal state have equal bytes.
  StateDict metadata = {};
};

/// How far the names in a file must be those of the items.
enum class LoadMode {
  strict,   ///< the file has these items, with the same names in them, and no others
  subset,   ///< the file may have more items, such as an optimizer where the model alone is wanted
  partial,  ///< what only the file has is left out; what it lacks stays as it is
};

struct LoadOptions {
  LoadMode mode = LoadMode::strict;
  /// In each item, loads only names that start with it.
  std::string prefix = {};
  /// Other names for those in items of the file, applied first: of an optimizer for its parameters.
  Renaming rename = {};
  /// Converts numbers of another floating-point dtype, which are an error otherwise.
  bool convert_dtype = false;
};

/// Names are those of items, or of entries of items: "model/0.weight".
struct LoadReport {
  std::vector<std::string> missing;     ///< not in the file, and as they were
  std::vector<std::string> unexpected;  ///< only in the file
  std::vector<std::string> kept;        ///< left out by the prefix
  StateDict metadata;                   ///< what SaveOptions::metadata says
};

/// Writes the state of all items to `path`. Collective; when it has returned, the file is complete
/// on disk. At any time before, and where it fails, `path` is what it was before or the complete
/// new file: it is written beside it, as `path`.tmp, and renamed.
///
/// Rank 0 writes; what only others have, they send it. The file does not depend on how tensors are cut
/// into parts, or on the number of ranks, except for items of each rank. Throws on all ranks: StateError,
/// which names entries and ranks, where they have drifted apart, have different numbers of one part,
/// or where nobody has one; CheckpointError where the file cannot be written; NameError where two
/// items have one name; OptionError for options out of their range and tensors in the metadata.
void save(const std::string& path, const Communicator& communicator, const std::vector<Item>& items,
          const SaveOptions& options = {});

/// Reads `path` on rank 0, a large file on other ranks of its node as well where they find the same
/// one, and restores all items on all ranks, whatever number of ranks saved it.
/// Collective. The whole file, and that it fits every item on every rank, is checked before
/// anything changes. An object whose state has a TensorPart gets that part of the tensor. Throws on all
/// ranks: CheckpointError where the file is missing, damaged, of a newer format, or does not fit an item,
/// with the item's name, or has names that the mode does not allow, with these. The report is the same on
/// all ranks, except for items of each rank.
LoadReport load(const std::string& path, const Communicator& communicator,
                const std::vector<Item>& items, const LoadOptions& options = {});

/// Writes one state dict to a file with the same guarantees; not collective. NameError for an entry
/// "metadata".
void write_file(const std::string& path, const StateDict& state);

/// Reads the state of a file, without the metadata, into memory of its own; not collective.
StateDict read_file(const std::string& path);

/// What a checkpoint file is, beside its state.
struct FileInfo {
  std::uint32_t version = 0;  ///< of the format
  std::uint64_t bytes = 0;    ///< of the whole file
  std::uint64_t tensors = 0;
  StateDict metadata;  ///< of save(); nothing of write_file()
};

/// Reads the header of a file, and verifies no more than that; not collective. CheckpointError as
/// from load().
FileInfo file_info(const std::string& path);

/// Reads and verifies all of a file as read_file() does, in memory for its header alone; not
/// collective. `progress` is told how many bytes of the file are done. CheckpointError as from
/// load().
FileInfo verify_file(const std::string& path,
                     const std::function<void(std::uint64_t bytes_done)>& progress = {});

}  // namespace lockstep::checkpoint

#pragma GCC visibility pop
