#include "lockstep/checkpoint/checkpoint.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "checkpoint/file.hpp"
#include "checkpoint/format.hpp"
#include "lockstep/core/error.hpp"

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

bool same(const TensorRecord& a, const TensorRecord& b) {
  return a.dtype == b.dtype && a.shape == b.shape && a.checksum == b.checksum;
}

// The entry in which two headers, that should describe the same state, first differ.
std::string first_difference(const Header& root, const Header& own) {
  const std::size_t records = std::min(root.records.size(), own.records.size());
  const auto quoted = [](const Header& header, std::size_t record) {
    return fmt::format("'{}'", path_of(header.records, record));
  };
  std::size_t resized = 0;
  for (std::size_t i = 0; i < records; ++i) {
    const StateRecord &a = root.records[i], &b = own.records[i];
    if (a.key != b.key || a.kind != b.kind) {
      return fmt::format("{}, where rank 0 has {}", quoted(own, i), quoted(root, i));
    }
    if (a.kind == StateRecord::tensor) {
      if (!same(root.tensors[a.number], own.tensors[b.number])) return quoted(own, i);
    } else if (a.kind == StateRecord::dict || a.kind == StateRecord::list) {
      // What is missing in one of them is found further down, as a rule.
      if (a.number != b.number) resized = i;
    } else if (a.number != b.number || a.string != b.string) {
      return quoted(own, i);
    }
  }
  if (own.records.size() > records) return quoted(own, records) + ", which rank 0 lacks";
  if (root.records.size() > records) return quoted(root, records) + ", which only rank 0 has";
  return quoted(own, resized);
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
  std::string text;
  communicator.agree([&] {
    state = flatten(collect(items));
    header = make_header(state);
    text = encode(header);
  });
  std::string root_text = text;
  communicator.broadcast(root_text);
  communicator.agree([&] {
    if (root_text == text) return;
    throw StateError(fmt::format("the state of rank {} differs from that of rank 0 in {}",
                                 communicator.rank(), first_difference(decode(root_text), header)));
  });
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
