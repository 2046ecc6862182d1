#include "testing/allocation_counter.hpp"

#include <cstdint>
#include <cstdlib>
#include <new>

namespace lockstep::testing {

std::size_t& allocated_bytes() {
  thread_local std::size_t bytes = 0;
  return bytes;
}

std::size_t& allocations_left() {
  thread_local std::size_t left = SIZE_MAX;
  return left;
}

namespace {

// Refuses, like a machine without that memory, what no test needs.
void* allocate(std::size_t size, std::size_t alignment) {
  allocated_bytes() += size;
  if (allocations_left()-- == 0) throw std::bad_alloc();
  if (size > std::size_t{1} << 30) throw std::bad_alloc();
  const std::size_t padded = (size / alignment + 1) * alignment;
  void* memory = std::aligned_alloc(alignment, padded);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace
}  // namespace lockstep::testing

// Not inlined: GCC would take the pairs of them apart and warn that they do not match.
[[gnu::noinline]] void* operator new(std::size_t size) {
  return lockstep::testing::allocate(size, alignof(std::max_align_t));
}
[[gnu::noinline]] void* operator new(std::size_t size, std::align_val_t alignment) {
  return lockstep::testing::allocate(size, static_cast<std::size_t>(alignment));
}
[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  try {
    return operator new(size);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}
