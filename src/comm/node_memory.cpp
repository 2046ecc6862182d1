#include "lockstep/comm/node_memory.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <optional>
#include <random>
#include <string>
#include <utility>

#include "comm/check.hpp"
#include "comm/raw.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/core/log.hpp"

namespace lockstep {
namespace {

std::size_t page_size() {
  static const auto size = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return size;
}

std::size_t whole_pages(std::size_t bytes) {
  return (bytes + page_size() - 1) / page_size() * page_size();
}

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int descriptor) noexcept : descriptor_(descriptor) {}
  ~Descriptor() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  Descriptor(Descriptor&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  int get() const noexcept { return descriptor_; }

 private:
  int descriptor_ = -1;
};

// A step of the set-up on this rank: empty where it worked, and else why not.
using Outcome = std::string;

Outcome failed(const char* call, int code) { return fmt::format("{}: {}", call, strerror(code)); }

Outcome create(const char* name, std::size_t bytes, Descriptor& descriptor) {
  descriptor = Descriptor(shm_open(name, O_CREAT | O_EXCL | O_RDWR, S_IRUSR | S_IWUSR));
  if (descriptor.get() < 0) return failed("shm_open", errno);
  if (ftruncate(descriptor.get(), static_cast<off_t>(bytes)) != 0)
    return failed("ftruncate", errno);
  return {};
}

Outcome open_existing(const char* name, std::size_t bytes, Descriptor& descriptor) {
  descriptor = Descriptor(shm_open(name, O_RDWR, 0));
  if (descriptor.get() < 0) return failed("shm_open", errno);
  struct stat status {};
  if (fstat(descriptor.get(), &status) != 0) return failed("fstat", errno);
  if (static_cast<std::size_t>(status.st_size) != bytes) return "shm_open: found another memory";
  return {};
}

// Each rank for its own part, which puts that near its core; a page that cannot be had would be a
// SIGBUS later.
Outcome allocate(const Descriptor& descriptor, std::size_t begin, std::size_t bytes) {
  int code = EINTR;
  while (bytes > 0 && code == EINTR) {
    code = posix_fallocate(descriptor.get(), static_cast<off_t>(begin), static_cast<off_t>(bytes));
  }
  return bytes == 0 || code == 0 ? Outcome() : failed("posix_fallocate", code);
}

// Of a file, or of no file for -1. Null where that fails, with errno.
std::shared_ptr<void> map(int descriptor, std::size_t bytes) try {
  const int kind = descriptor < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, kind, descriptor, 0);
  if (memory == MAP_FAILED) return nullptr;
  return {memory, [bytes](void* pointer) { munmap(pointer, bytes); }};
} catch (const std::bad_alloc&) {
  errno = ENOMEM;
  return nullptr;
}

// What the first rank that failed says, on all ranks; nothing where none did. Collective.
std::optional<std::string> first_failure(const Communicator& communicator, const Outcome& outcome) {
  const int none = communicator.size();
  const int culprit = comm::minimum(communicator, communicator.handle(),
                                    outcome.empty() ? none : communicator.rank());
  if (culprit == none) return std::nullopt;
  return fmt::format("{} on rank {}", comm::broadcast(communicator, outcome, culprit), culprit);
}

// As Communicator::agree does it, which this memory may yet be for. Collective.
template <class Work>
void prepare(const Communicator& communicator, const Work& work) {
  const int none = communicator.size();
  int culprit = none;
  try {
    work();
  } catch (const std::bad_alloc&) {
    culprit = communicator.rank();
  }
  culprit = comm::minimum(communicator, communicator.handle(), culprit);
  if (culprit == none) return;
  throw_collective({ErrorKind::other, fmt::format("out of memory (rank {})", culprit)});
}

// Bytes in whole pages; an Error where a node could not have that for each rank, nor count it.
std::size_t pages_for_each(std::size_t bytes, const Communicator& communicator) {
  const auto parts = static_cast<std::size_t>(communicator.size()) + 1;
  constexpr auto most = static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max());
  if (bytes > most / parts - page_size()) {
    throw_collective({ErrorKind::other, fmt::format("no memory of {} bytes for each rank", bytes)});
  }
  return whole_pages(bytes);
}

}  // namespace

NodeMemory::NodeMemory(const Communicator& communicator, std::size_t segment_bytes,
                       std::size_t common_bytes)
    : segment_bytes_(pages_for_each(segment_bytes, communicator)),
      common_bytes_(pages_for_each(std::max<std::size_t>(common_bytes, 1), communicator)) {
  std::uint64_t token = 0;
  prepare(communicator, [&] {
    placement_ = communicator.placement();
    std::random_device random;
    token = std::uint64_t{random()} << 32 | random();
  });
  token = comm::broadcast_value(communicator, token, 0);
  std::array<char, 64> name{};
  fmt::format_to_n(name.data(), name.size() - 1, "/lockstep-{:016x}-{}", token, placement_.node);
  const std::vector<int>& neighbours = placement_.neighbours();
  const std::size_t total = neighbours.size() * segment_bytes_ + common_bytes_;
  const bool first = placement_.node_rank == 0;

  Descriptor descriptor;
  Outcome outcome = communicator.options().share_memory ? Outcome() : "it is switched off";
  if (outcome.empty() && first) outcome = create(name.data(), total, descriptor);
  const bool created = first && descriptor.get() >= 0;
  std::optional<std::string> failure = first_failure(communicator, outcome);
  if (!failure) {
    if (!first) outcome = open_existing(name.data(), total, descriptor);
    failure = first_failure(communicator, outcome);
  }
  if (created) shm_unlink(name.data());
  if (!failure) {
    const auto place = static_cast<std::size_t>(placement_.node_rank);
    outcome = allocate(descriptor, place * segment_bytes_, segment_bytes_);
    if (first && outcome.empty()) {
      outcome = allocate(descriptor, neighbours.size() * segment_bytes_, common_bytes_);
    }
    if (outcome.empty()) {
      memory_ = map(descriptor.get(), total);
      if (memory_ == nullptr) outcome = failed("mmap", errno);
    }
    failure = first_failure(communicator, outcome);
  }
  shared_ = !failure;
  if (shared_) return;

  if (communicator.rank() == 0 && communicator.options().share_memory) {
    log(LogLevel::warning, fmt::format("no memory can be shared by the ranks of a node ({}, of {} "
                                       "bytes): reductions use ordinary memory, and are slower",
                                       *failure, total));
  }
  prepare(communicator, [&] {
    placement_.node = communicator.rank();
    placement_.node_rank = 0;
    placement_.nodes.clear();
    for (int rank = 0; rank < communicator.size(); ++rank) placement_.nodes.push_back({rank});
  });
  const std::size_t own = segment_bytes_ + common_bytes_;
  memory_ = map(-1, own);
  outcome = memory_ == nullptr ? failed("mmap", errno) : Outcome();
  if (const auto refusal = first_failure(communicator, outcome)) {
    throw_collective({ErrorKind::other, fmt::format("no memory of {} bytes: {}", own, *refusal)});
  }
}

std::span<std::byte> NodeMemory::segment(int node_rank) const noexcept {
  auto* begin = static_cast<std::byte*>(memory_.get());
  return {begin + static_cast<std::size_t>(node_rank) * segment_bytes_, segment_bytes_};
}

std::span<std::byte> NodeMemory::common() const noexcept {
  auto* begin = static_cast<std::byte*>(memory_.get());
  return {begin + placement_.neighbours().size() * segment_bytes_, common_bytes_};
}

}  // namespace lockstep
