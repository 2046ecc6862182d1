#include "lockstep/tensor/memory_pool.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <new>
#include <utility>

namespace lockstep::memory_pool {
namespace {

constexpr std::size_t largest_block = std::size_t{32} << 20;
constexpr std::size_t most_kept = std::size_t{256} << 20;

// Sizes of blocks, in units of the alignment: 1 to 8, and then four to each doubling, so that a block
// is less than a quarter larger than what was asked for.
constexpr std::size_t class_of(std::size_t units) {
  if (units <= 8) return units - 1;
  const auto doubling = static_cast<std::size_t>(std::bit_width(units - 1)) - 1;
  return 8 + 4 * (doubling - 3) + ((units - 1) >> (doubling - 2)) - 4;
}

constexpr std::size_t units_of(std::size_t size_class) {
  if (size_class < 8) return size_class + 1;
  const std::size_t doubling = (size_class - 8) / 4 + 3;
  return ((size_class - 8) % 4 + 5) << (doubling - 2);
}

constexpr std::size_t classes = class_of(largest_block / alignment) + 1;
static_assert(units_of(classes - 1) * alignment == largest_block);

constexpr std::size_t units(std::size_t bytes) {
  return (std::max<std::size_t>(bytes, 1) - 1) / alignment + 1;
}

void* allocate_units(std::size_t units) {
  return ::operator new (units* alignment, std::align_val_t{alignment});
}

void free_units(void* memory) noexcept { ::operator delete (memory, std::align_val_t{alignment}); }

struct Free {
  Free* next;
};

struct Kept {
  ~Kept();
  void give_back() noexcept;

  std::array<Free*, classes> blocks{};
  std::size_t bytes = 0;
};

// What is destroyed after the pool of its thread, as a static tensor is, finds no place there.
thread_local bool ended = false;
thread_local Kept kept;

Kept::~Kept() {
  ended = true;
  give_back();
}

void Kept::give_back() noexcept {
  for (Free*& first : blocks) {
    while (first != nullptr) free_units(std::exchange(first, first->next));
  }
  bytes = 0;
}

// The address sanitizer sees a block that is used after its release only if it is released for good.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool keeps = false;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
constexpr bool keeps = false;
#else
constexpr bool keeps = true;
#endif
#else
constexpr bool keeps = true;
#endif

}  // namespace

void* allocate(std::size_t bytes) {
  if (!keeps || bytes > largest_block || ended) return allocate_units(units(bytes));
  const std::size_t size_class = class_of(units(bytes));
  Kept& pool = kept;
  Free*& first = pool.blocks[size_class];
  if (first == nullptr) return allocate_units(units_of(size_class));
  Free* block = first;
  first = block->next;
  pool.bytes -= units_of(size_class) * alignment;
  return block;
}

void release(void* memory, std::size_t bytes) noexcept {
  if (!keeps || bytes > largest_block || ended) return free_units(memory);
  const std::size_t size_class = class_of(units(bytes));
  const std::size_t size = units_of(size_class) * alignment;
  Kept& pool = kept;
  if (size > most_kept - pool.bytes) return free_units(memory);
  pool.bytes += size;
  pool.blocks[size_class] = new (memory) Free{pool.blocks[size_class]};
}

void give_back() noexcept {
  if (!ended) kept.give_back();
}

}  // namespace lockstep::memory_pool
