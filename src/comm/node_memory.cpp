#include "lockstep/comm/node_memory.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <utility>

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

Outcome create(const std::string& name, std::size_t bytes, Descriptor& descriptor) {
  descriptor = Descriptor(shm_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR, S_IRUSR | S_IWUSR));
  if (descriptor.get() < 0) return failed("shm_open", errno);
  if (ftruncate(descriptor.get(), static_cast<off_t>(bytes)) != 0)
    return failed("ftruncate", errno);
  return {};
}

Outcome open_existing(const std::string& name, std::size_t bytes, Descriptor& descriptor) {
  descriptor = Descriptor(shm_open(name.c_str(), O_RDWR, 0));
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

std::shared_ptr<void> map(const Descriptor& descriptor, std::size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor.get(), 0);
  if (memory == MAP_FAILED) return nullptr;
  return {memory, [bytes](void* pointer) { munmap(pointer, bytes); }};
}

// What the first rank that failed says, on all ranks; nothing where none did. Collective.
std::optional<std::string> first_failure(const Communicator& communicator, const Outcome& outcome) {
  const int none = communicator.size();
  const int culprit =
      comm::minimum(communicator.handle(), outcome.empty() ? none : communicator.rank());
  if (culprit == none) return std::nullopt;
  return fmt::format("{} on rank {}", comm::broadcast(communicator.handle(), outcome, culprit),
                     culprit);
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
    : placement_(communicator.placement()),
      segment_bytes_(pages_for_each(segment_bytes, communicator)),
      common_bytes_(pages_for_each(std::max<std::size_t>(common_bytes, 1), communicator)) {
  const std::vector<int>& neighbours = placement_.neighbours();
  const std::size_t total = neighbours.size() * segment_bytes_ + common_bytes_;
  const bool first = placement_.node_rank == 0;
  std::random_device random;
  const std::uint64_t token = std::uint64_t{random()} << 32 | random();
  const std::vector<std::uint64_t> tokens = comm::all_gather(communicator.handle(), token);
  const std::string name =
      fmt::format("/lockstep-{:016x}", tokens[static_cast<std::size_t>(neighbours[0])]);

  Descriptor descriptor;
  Outcome outcome = communicator.options().share_memory ? Outcome() : "it is switched off";
  if (outcome.empty() && first) outcome = create(name, total, descriptor);
  const bool created = first && descriptor.get() >= 0;
  std::optional<std::string> failure = first_failure(communicator, outcome);
  if (!failure) {
    if (!first) outcome = open_existing(name, total, descriptor);
    failure = first_failure(communicator, outcome);
  }
  if (created) shm_unlink(name.c_str());
  if (!failure) {
    const auto place = static_cast<std::size_t>(placement_.node_rank);
    outcome = allocate(descriptor, place * segment_bytes_, segment_bytes_);
    if (first && outcome.empty()) {
      outcome = allocate(descriptor, neighbours.size() * segment_bytes_, common_bytes_);
    }
    if (outcome.empty()) {
      memory_ = map(descriptor, total);
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
  placement_.node = communicator.rank();
  placement_.node_rank = 0;
  placement_.nodes.clear();
  for (int rank = 0; rank < communicator.size(); ++rank) placement_.nodes.push_back({rank});
  const std::size_t own = segment_bytes_ + common_bytes_;
  void* memory = mmap(nullptr, own, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  outcome = memory == MAP_FAILED ? failed("mmap", errno) : Outcome();
  if (outcome.empty()) memory_ = {memory, [own](void* pointer) { munmap(pointer, own); }};
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
