#include "lockstep/checkpoint/checkpoint.hpp"

#include <fmt/format.h>

#include <cstdint>
#include <set>

#include "checkpoint/file.hpp"
#include "checkpoint/format.hpp"
#include "comm/drift.hpp"
#include "lockstep/core/error.hpp"
#include "state/state_hashes.hpp"

namespace lockstep::checkpoint {
namespace {

void check_names(const std::vector<Item>& items) {
  std::set<std::string> names;
  for (const Item& item : items) {
    if (!names.insert(item.name).second) {
      throw NameError(fmt::format("two items of the checkpoint are called '{}'", item.name));
    }
  }
}

StateDict collect(const std::vector<Item>& items) {
  check_names(items);
  StateDict state;
  for (const Item& item : items) state[item.name] = item.object->state_dict();
  return state;
}

void check_items(const std::vector<Item>& items, const StateDict& state,
                 const std::filesystem::path& path) {
  for (const Item& item : items) {
    try {
      item.object->check_restore(state.at(item.name).as_dict());
    } catch (const Error& error) {
      throw CheckpointError(fmt::format("the checkpoint '{}' does not fit '{}': {}", path.string(),
                                        item.name, error.what()));
    }
  }
}

}  // namespace

void save(const std::filesystem::path& path, const Communicator& communicator,
          const std::vector<Item>& items) {
  FlatState state;
  Header header;
  std::vector<NamedHash> entries;
  communicator.agree([&] {
    state = flatten(collect(items));
    header = make_header(state);
    std::vector<std::uint64_t> checksums;
    for (const TensorRecord& tensor : header.tensors) checksums.push_back(tensor.checksum);
    entries = hash_entries(state, checksums);
  });
  const std::string drift = comm::find_drift(communicator, entries);
  if (!drift.empty()) {
    throw_collective({ErrorKind::state, fmt::format("the replicas have drifted apart: {}", drift)});
  }
  communicator.agree([&] {
    if (communicator.rank() == 0) write_state(path, state, header, *posix_file_system());
  });
}

void load(const std::filesystem::path& path, const Communicator& communicator,
          const std::vector<Item>& items) {
  FileContents contents;
  std::string text;
  communicator.agree([&] {
    check_names(items);
    if (communicator.rank() != 0) return;
    contents = read_contents(path);
    text = encode(contents.header);
  });
  communicator.broadcast(text);
  StateDict state;
  communicator.agree([&] {
    if (communicator.rank() != 0) {
      contents.header = decode(text);
      contents.tensors = allocate_tensors(contents.header);
    }
    state = unflatten(contents.header.records, contents.tensors);
    check_items(items, state, path);
  });
  for (Tensor& tensor : contents.tensors) {
    communicator.broadcast_bytes(tensor.raw(), tensor.bytes());
  }
  communicator.agree([&] {
    for (const Item& item : items) item.object->restore(state.at(item.name).as_dict());
  });
}

void write_file(const std::filesystem::path& path, const StateDict& state) {
  const FlatState flat = flatten(state);
  write_state(path, flat, make_header(flat), *posix_file_system());
}

StateDict read_file(const std::filesystem::path& path) {
  const FileContents contents = read_contents(path);
  return unflatten(contents.header.records, contents.tensors);
}

}  // namespace lockstep::checkpoint
