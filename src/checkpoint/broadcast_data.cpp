#include "checkpoint/broadcast_data.hpp"

#include <array>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>

#include "checkpoint/input_file.hpp"
#include "comm/chunk_broadcast.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep::checkpoint {
namespace {

// Data that one rank reads about as fast as several.
constexpr std::uint64_t few_bytes = 16 * comm::broadcast_chunk_bytes;

// The file where it is what rank 0 has opened. Nobody depends on it: rank 0 can read all by itself.
std::unique_ptr<InputFile> open_same(const std::string& path, const InputFile::Identity& identity) {
  try {
    auto file = std::make_unique<InputFile>("checkpoint", path);
    if (file->identity() == identity) return file;
  } catch (const std::exception&) {
  }
  return nullptr;
}

}  // namespace

void broadcast_data(const Communicator& communicator, const std::string& path, FileReader* file,
                    Scattered& state) {
  std::array<std::int64_t, 3> place{};  // of the data on rank 0
  if (file != nullptr) {
    const InputFile::Identity identity = file->identity();
    place = {identity.device, identity.number, static_cast<std::int64_t>(file->data_begin())};
  }
  communicator.broadcast(std::span<std::int64_t>(place));
  const InputFile::Identity identity{.device = place[0], .number = place[1]};
  const auto data = static_cast<std::uint64_t>(place[2]);
  const bool is_helper = state.data_bytes > few_bytes && communicator.placement().node == 0;
  std::unique_ptr<InputFile> same;
  comm::FillChunk fill;
  if (file != nullptr) {
    fill = [file](std::uint64_t begin, std::span<std::byte> chunk) { file->read_at(begin, chunk); };
  } else if (is_helper && (same = open_same(path, identity)) != nullptr) {
    fill = [&same, data](std::uint64_t begin, std::span<std::byte> chunk) {
      same->read(data + begin, chunk.data(), chunk.size());
    };
  }
  std::exception_ptr failure;
  const auto use = [&](std::uint64_t begin, std::span<const std::byte> chunk) {
    state.take(begin, chunk);
    if (file == nullptr || failure != nullptr) return;
    try {
      file->verify(chunk);
    } catch (...) {
      failure = std::current_exception();
    }
  };
  // Without memory for a copy, of which one rank alone could have none.
  comm::broadcast_chunks(communicator, state.data_bytes, fill, std::ref(use));
  communicator.agree([&failure] {
    if (failure != nullptr) std::rethrow_exception(failure);
  });
}

}  // namespace lockstep::checkpoint
