#pragma once

#include <cstddef>

#pragma GCC visibility push(default)

namespace lockstep::memory_pool {

/// Blocks begin at boundaries of so many bytes, and have a multiple of them.
inline constexpr std::size_t alignment = 64;

/// Memory with arbitrary contents, which a block that this thread has released before may be: a
/// training step asks for the same sizes again and again, and what is new costs a page fault each
/// 4 KiB. std::bad_alloc where there is none.
void* allocate(std::size_t bytes);

/// Takes back what allocate(bytes) has given, on any thread. Each keeps at most 256 MiB, in blocks of
/// at most 32 MiB, until it ends.
void release(void* memory, std::size_t bytes) noexcept;

/// Gives back all that this thread keeps: for who has moved much of what was in blocks, which nothing
/// will ask for again.
void give_back() noexcept;

/// For the parts of a graph that operations record, and the entries of a state dict.
template <class T>
struct Allocator {
  using value_type = T;

  Allocator() = default;
  template <class U>
  Allocator(const Allocator<U>&) noexcept {}  // NOLINT: allocators convert

  T* allocate(std::size_t count) {
    static_assert(alignof(T) <= alignment);
    return static_cast<T*>(memory_pool::allocate(count * sizeof(T)));
  }
  void deallocate(T* memory, std::size_t count) noexcept {
    memory_pool::release(memory, count * sizeof(T));
  }
  friend bool operator==(const Allocator&, const Allocator&) = default;
};

}  // namespace lockstep::memory_pool

#pragma GCC visibility pop
