#pragma once

#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <set>
#include <utility>
#include <vector>

#include "comm/announcement.hpp"
#include "comm/job.hpp"

namespace lockstep::comm {

/// Of a message: below the 64 KiB up to which Open MPI hands one to TCP at once, so that the network
/// goes on with it while this process computes.
constexpr std::size_t longest_message_lines = 960;

/// The first line of every message between nodes: what the sender is about to do, and which part of that it is.
struct MessageHeader {
  Announcement announcement;
  std::uint64_t part = 0;

  static MessageHeader of(const std::byte* message) noexcept {
    MessageHeader header;
    std::memcpy(&header, message, sizeof header);
    return header;
  }
  void write_to(std::byte* message) const noexcept { std::memcpy(message, this, sizeof *this); }
  bool agrees_with(const MessageHeader& other) const noexcept {
    return announcement.agrees_with(other.announcement) && part == other.part;
  }
};
static_assert(sizeof(MessageHeader) <= line_bytes);

/// Messages that are under way between this rank and one of each node, and the memory that they are
/// in, which begins at a line and stays as long as MPI may use it.
class Messages {
 public:
  Messages(MPI_Comm communicator, std::size_t nodes)
      : communicator_(communicator), incoming_(nodes) {}
  ~Messages();
  Messages(Messages&&) noexcept = default;
  Messages& operator=(Messages&&) = delete;

  /// At least so many bytes; of what was there before nothing is kept where it has to grow.
  std::byte* outgoing(std::size_t bytes) { return outgoing_.reserve(bytes); }
  std::byte* incoming(std::size_t node, std::size_t bytes) {
    return incoming_[node].reserve(bytes);
  }

  /// Memory of others that messages are in, which stays as long; nullptr where none is any more.
  void keep(std::shared_ptr<void> memory) noexcept { kept_ = std::move(memory); }

  void send(const std::byte* data, std::size_t bytes, int rank, int tag);
  void receive(std::byte* data, std::size_t bytes, int rank, int tag);
  /// Whether all of them have arrived.
  bool test();
  /// Adds the ranks whose messages have not.
  void add_missing(std::set<int>& ranks) const;

 private:
  struct FreeBytes {
    void operator()(std::byte* bytes) const {
      ::operator delete[](bytes, std::align_val_t{line_bytes});
    }
  };
  struct Buffer {
    std::unique_ptr<std::byte[], FreeBytes> memory;
    std::size_t size = 0;

    std::byte* reserve(std::size_t bytes);
  };

  MPI_Comm communicator_;
  std::vector<MPI_Request> requests_;
  std::vector<int> ranks_;  // of the requests
  Buffer outgoing_;
  std::vector<Buffer> incoming_;
  std::shared_ptr<void> kept_;
};

/// Gives up what is under way; returns whether MPI may still use its memory.
bool abandon(std::vector<MPI_Request>& requests) noexcept;

}  // namespace lockstep::comm
