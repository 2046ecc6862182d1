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

#include "checkpoint/broadcast_data.hpp"
#include "checkpoint/collect.hpp"
#include "checkpoint/file.hpp"
#include "checkpoint/format.hpp"
#include "checkpoint/metadata.hpp"
#include "checkpoint/scatter.hpp"
#include "comm/calls.hpp"
#include "lockstep/core/error.hpp"
#include "state/state_hashes.hpp"

namespace lockstep::checkpoint {
namespace {

// Bytes of a file that are verified at a time.
constexpr std::size_t chunk_bytes = std::size_t{4} << 20;

FileInfo info_of(FileReader& file) {
  Header header = file.decode();
  StateDict state = numbered_tree(std::move(header.records), header.tensors.size());
  return {.version = format_version,
          .bytes = file.bytes(),
          .tensors = header.tensors.size(),
          .metadata = take_metadata(state)};
}

}  // namespace

void save(const std::string& path, const Communicator& communicator, const std::vector<Item>& items,
          const SaveOptions& options) {
  const auto write = [&path](const Header& header, GatheredTensors& tensors) {
    write_state(
        path, header,
        [&tensors](std::size_t tensor, const auto& put) { tensors.read(tensor, put); },
        *posix_file_system());
  };
  const auto take = [](Tensor& tensor) { return checksum(tensor); };
  collect(path, communicator, items, options, take, write);
}

LoadReport load(const std::string& path, const Communicator& communicator,
                const std::vector<Item>& items, const LoadOptions& options) try {
  comm::Calls::announce(communicator, {.call = comm::Call::load});
  std::unique_ptr<FileReader> file;
  std::string text;
  communicator.agree([&] {
    if (communicator.rank() != 0) return;
    file = std::make_unique<FileReader>(path);
    text = file->header_text();
  });
  communicator.broadcast(text);
  Scattered state;
  communicator.agree([&] {
    state = scattered(file != nullptr ? file->decode() : decode(text), items, options.mode,
                      communicator, path);
  });
  broadcast_data(communicator, path, file.get(), state);
  communicator.agree([&] { check_load(state, items, options, path); });
  try {
    communicator.agree([&] { load_items(state, items, options); });
  } catch (const Error& error) {
    throw_collective(
        {ErrorKind::checkpoint,
         fmt::format("the checkpoint '{}' is loaded only in part: {}", path, error.what())});
  }
  return std::move(state.report);
} catch (const Error& error) {
  rethrow_with(path, "loaded", error);
}

void write_file(const std::string& path, const StateDict& state) {
  check_no_metadata(state);
  const FlatState flat = flatten(state);
  write_state(path, flat, make_header(flat), *posix_file_system());
}

StateDict read_file(const std::string& path) {
  FileContents contents = read_contents(path);
  StateDict state = unflatten(std::move(contents.header.records), contents.tensors);
  take_metadata(state);
  return state;
}

FileInfo file_info(const std::string& path) {
  FileReader file(path);
  return info_of(file);
}

FileInfo verify_file(const std::string& path,
                     const std::function<void(std::uint64_t bytes_done)>& progress) {
  FileReader file(path);
  FileInfo info = info_of(file);
  std::vector<std::byte> chunk(std::min<std::uint64_t>(chunk_bytes, file.data_bytes()));
  for (std::uint64_t left = file.data_bytes(); left > 0; left -= chunk.size()) {
    chunk.resize(std::min<std::uint64_t>(chunk.size(), left));
    file.read(chunk);
    if (progress) progress(info.bytes - left + chunk.size());
  }
  if (progress) progress(info.bytes);
  return info;
}

}  // namespace lockstep::checkpoint
