#include "lockstep/checkpoint/checkpoint.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/file.hpp"
#include "checkpoint/format.hpp"
#include "checkpoint/gather.hpp"
#include "checkpoint/gathered_tensors.hpp"
#include "checkpoint/scatter.hpp"
#include "comm/drift.hpp"
#include "comm/pull.hpp"
#include "lockstep/core/error.hpp"
#include "state/state_hashes.hpp"

namespace lockstep::checkpoint {
namespace {

// Bytes of a file that all ranks get at a time.
constexpr std::size_t chunk_bytes = std::size_t{4} << 20;

// Returns the checksums of the tensors.
std::vector<std::uint64_t> check_alike(const Communicator& communicator, const StateDict& alike) {
  std::vector<std::uint64_t> checksums;
  std::vector<NamedHash> entries;
  communicator.agree([&] {
    const FlatState state = flatten(alike);
    for (const Tensor& tensor : state.tensors) checksums.push_back(checksum(tensor));
    entries = hash_entries(state, checksums);
  });
  const std::string drift = comm::find_drift(communicator, entries);
  if (drift.empty()) return checksums;
  throw_collective({ErrorKind::state, fmt::format("the replicas have drifted apart: {}", drift)});
}

void serve(const Communicator& communicator, const Contribution& own) {
  std::vector<Bytes> arrays;
  for (const Tensor& tensor : own.arrays) arrays.push_back(bytes_of(tensor));
  comm::serve(communicator, 0, arrays);
}

}  // namespace

void save(const std::filesystem::path& path, const Communicator& communicator,
          const std::vector<Item>& items, const SaveOptions& options) {
  Contribution own;
  communicator.agree([&] {
    if (options.buffer_bytes == 0) throw OptionError("expected buffer_bytes > 0, found 0");
    own = contribution_of(items, communicator.rank());
  });
  const std::vector<std::uint64_t> checksums = check_alike(communicator, own.alike);
  const std::vector<std::string> texts = communicator.gather(encode(own.own));
  std::unique_ptr<GatheredTensors> tensors;
  communicator.agree([&] {
    if (communicator.rank() != 0) return;
    std::vector<Header> contributions;
    for (const std::string& text : texts) contributions.push_back(parse(text));
    tensors = std::make_unique<GatheredTensors>(communicator, own, gather(own.alike, contributions),
                                                options.buffer_bytes);
  });
  std::exception_ptr failure;
  if (tensors == nullptr) {
    serve(communicator, own);
  } else {
    try {
      write_state(
          path, tensors->header(checksums),
          [&tensors](std::size_t tensor, const auto& write) { tensors->read(tensor, write); },
          *posix_file_system());
    } catch (...) {
      failure = std::current_exception();
    }
    tensors->end();
  }
  communicator.agree([&failure] {
    if (failure != nullptr) std::rethrow_exception(failure);
  });
}

void load(const std::filesystem::path& path, const Communicator& communicator,
          const std::vector<Item>& items) {
  std::unique_ptr<FileReader> file;
  std::string text;
  communicator.agree([&] {
    if (communicator.rank() != 0) return;
    file = std::make_unique<FileReader>(path);
    text = encode(file->header());
  });
  communicator.broadcast(text);
  Scattered state;
  communicator.agree([&] { state = scattered(decode(text), items, communicator, path); });
  // All ranks go through the whole file, whether or not it turns out to be damaged.
  std::exception_ptr failure;
  std::vector<std::byte> chunk(std::min<std::uint64_t>(chunk_bytes, state.data_bytes));
  for (std::uint64_t begin = 0; begin < state.data_bytes; begin += chunk.size()) {
    chunk.resize(std::min<std::uint64_t>(chunk.size(), state.data_bytes - begin));
    if (file != nullptr && failure == nullptr) {
      try {
        file->read(chunk);
      } catch (...) {
        failure = std::current_exception();
      }
    }
    communicator.broadcast_bytes(chunk.data(), chunk.size());
    state.take(begin, chunk);
  }
  communicator.agree([&] {
    if (failure != nullptr) std::rethrow_exception(failure);
    check_restore(state, items, path);
  });
  communicator.agree([&] {
    for (std::size_t i = 0; i < items.size(); ++i) items[i].object->restore(state.of_items[i]);
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

FileInfo file_info(const std::filesystem::path& path) { return FileReader(path).info(); }

FileInfo verify_file(const std::filesystem::path& path,
                     const std::function<void(std::uint64_t bytes_done)>& progress) {
  FileReader file(path);
  std::vector<std::byte> chunk(std::min<std::uint64_t>(chunk_bytes, file.data_bytes()));
  for (std::uint64_t left = file.data_bytes(); left > 0; left -= chunk.size()) {
    chunk.resize(std::min<std::uint64_t>(chunk.size(), left));
    file.read(chunk);
    if (progress) progress(file.info().bytes - left + chunk.size());
  }
  if (progress) progress(file.info().bytes);
  return file.info();
}

}  // namespace lockstep::checkpoint
