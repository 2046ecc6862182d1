#include "comm/chunk_broadcast.hpp"

#include <mpi.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <optional>

#include "comm/calls.hpp"
#include "comm/check.hpp"
#include "comm/wait.hpp"
#include "lockstep/comm/node_memory.hpp"

namespace lockstep::comm {
namespace {

// Two lines of cache are fetched at a time.
struct alignas(128) Count {
  std::atomic<std::uint64_t> value;

  std::uint64_t get() const noexcept { return value.load(std::memory_order_acquire); }
  void set(std::uint64_t count) noexcept { value.store(count, std::memory_order_release); }
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

struct Chunk {
  std::uint32_t failed;  // there is no such chunk, and none after it
  alignas(64) std::byte bytes[broadcast_chunk_bytes];
};

/// The chunks that are under way on a node, by their numbers from 0 on.
class Ring {
 public:
  Ring(const Communicator& communicator, std::uint64_t chunks)
      : memory_(communicator, sizeof(Count),
                offsetof(Shared, ring) + std::min<std::uint64_t>(chunks, slots) * sizeof(Slot)),
        shared_(reinterpret_cast<Shared*>(memory_.common().data())),
        chunks_(chunks) {}

  const Placement& placement() const noexcept { return memory_.placement(); }

  Chunk& operator[](std::uint64_t number) const noexcept { return slot(number).chunk; }

  /// The next chunk that nobody fills yet, for this rank to fill, where there is room.
  std::optional<std::uint64_t> claim() noexcept {
    std::uint64_t number = shared_->claimed.get();
    if (number == chunks_ || !has_room(number) ||
        !shared_->claimed.value.compare_exchange_strong(number, number + 1)) {
      return std::nullopt;
    }
    return number;
  }
  void set_filled(std::uint64_t number) noexcept { slot(number).filled.set(number + 1); }
  bool is_filled(std::uint64_t number) const noexcept { return slot(number).filled.get() > number; }
  void set_used(std::uint64_t number) noexcept { used_by(placement().node_rank).set(number + 1); }

 private:
  static constexpr std::size_t slots = 16;
  struct Slot {
    Count filled;
    Chunk chunk;
  };
  // Zeros are valid objects of these types, which every rank finds there.
  struct Shared {
    Count claimed;
    Slot ring[slots];
  };

  Slot& slot(std::uint64_t number) const noexcept { return shared_->ring[number % slots]; }
  Count& used_by(int node_rank) const noexcept {
    return *reinterpret_cast<Count*>(memory_.segment(node_rank).data());
  }
  bool has_room(std::uint64_t number) const noexcept {
    for (std::size_t rank = 0; rank < placement().neighbours().size(); ++rank) {
      if (used_by(static_cast<int>(rank)).get() + slots <= number) return false;
    }
    return true;
  }

  NodeMemory memory_;
  Shared* shared_;
  std::uint64_t chunks_;
};

/// The first ranks of all nodes, where there are several.
class FirstRanks {
 public:
  FirstRanks(const Communicator& communicator, const Placement& placement) : ranks_(communicator) {
    if (placement.nodes.size() == 1) return;
    check_mpi(MPI_Comm_split(communicator.handle(), placement.node_rank == 0 ? 0 : MPI_UNDEFINED,
                             communicator.rank(), &communicator_),
              "MPI_Comm_split");
  }

  bool has_this() const noexcept { return communicator_ != MPI_COMM_NULL; }
  void broadcast(Chunk& chunk, std::size_t size) const {
    const auto bytes = static_cast<int>(offsetof(Chunk, bytes) + size);
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Ibcast(&chunk, bytes, MPI_BYTE, 0, communicator_, &request), "MPI_Ibcast");
    Wait(ranks_).finish(request, "a part of a broadcast between nodes");
  }
  /// Collective.
  void free() {
    if (has_this()) check_mpi(MPI_Comm_free(&communicator_), "MPI_Comm_free");
  }

 private:
  Communicator ranks_;  // all of them
  MPI_Comm communicator_ = MPI_COMM_NULL;
};

}  // namespace

void broadcast_chunks(const Communicator& communicator, std::uint64_t bytes, const FillChunk& fill,
                      const UseChunk& use) {
  if (Calls* calls = Calls::of(communicator)) {
    calls->announce({.call = Call::broadcast, .count = bytes, .element = Element::u8});
  }
  const std::uint64_t chunks = (bytes + broadcast_chunk_bytes - 1) / broadcast_chunk_bytes;
  const auto begin_of = [](std::uint64_t number) { return number * broadcast_chunk_bytes; };
  const auto size_of = [&](std::uint64_t number) -> std::size_t {
    return std::min<std::uint64_t>(bytes - begin_of(number), broadcast_chunk_bytes);
  };
  Ring ring(communicator, chunks);
  FirstRanks first_ranks(communicator, ring.placement());
  const bool has_source = ring.placement().node == 0;
  const bool sends = has_source && first_ranks.has_this();
  const bool fills = has_source ? fill != nullptr : first_ranks.has_this();
  std::exception_ptr failure;
  const auto fill_chunk = [&](std::uint64_t number) {
    Chunk& chunk = ring[number];
    if (!has_source) return first_ranks.broadcast(chunk, size_of(number));
    try {
      fill(begin_of(number), {chunk.bytes, size_of(number)});
    } catch (...) {
      failure = std::current_exception();
      chunk.failed = 1;
    }
  };
  const auto fill_another = [&] {
    const auto number = fills ? ring.claim() : std::nullopt;
    if (number) {
      fill_chunk(*number);
      ring.set_filled(*number);
    }
    return number.has_value();
  };
  for (std::uint64_t next = 0; next < chunks; ++next) {
    Wait wait(communicator.rank(), communicator.options().deadline, ring.placement().crowded);
    while (!ring.is_filled(next)) {
      if (fill_another()) continue;
      if (!wait.pause()) wait.give_up("a part of a broadcast");
      wait.tell([] { return "a part of a broadcast"; });
    }
    Chunk& chunk = ring[next];
    if (sends) first_ranks.broadcast(chunk, size_of(next));
    if (chunk.failed != 0) break;
    use(begin_of(next), {chunk.bytes, size_of(next)});
    ring.set_used(next);
  }
  first_ranks.free();
  communicator.agree([&failure] {
    if (failure != nullptr) std::rethrow_exception(failure);
  });
}

}  // namespace lockstep::comm
