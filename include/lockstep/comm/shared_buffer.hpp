#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "lockstep/comm/communicator.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

/// Numbers of each rank, which an all-reduce combines without a copy: the ranks of a node write them
/// into memory that they share, each rank combines a part for all, and all read the one result
/// there. Where memory cannot be shared it works all the same, with the same bits.
///
/// T is float, double, std::int64_t, std::uint8_t, float16 or bfloat16 (summed in float).
template <class T>
class SharedBuffer {
 public:
  /// `size` numbers, zero to begin with. Collective; all ranks must ask for the same.
  SharedBuffer(const Communicator& communicator, std::size_t size);
  /// Local.
  ~SharedBuffer();
  SharedBuffer(SharedBuffer&&) noexcept;
  SharedBuffer& operator=(SharedBuffer&&) noexcept;

  std::size_t size() const noexcept;
  /// Whether the ranks of a node share this memory.
  bool shared() const noexcept;

  /// This rank's numbers, at a 64-byte boundary: to be written before an all-reduce.
  std::span<T> values() noexcept;

  /// What the last all-reduce has brought, the same bits on all ranks. It stays until the values are
  /// written again.
  std::span<const T> result() const noexcept;

  /// Combines the values of all ranks into result(). Collective; StateError on all ranks, naming
  /// two, where they differ in size or `op`. OptionError for the mean of integers.
  void all_reduce(ReduceOp op = ReduceOp::sum);

  /// The same in two steps, with other work between; values() must not be written meanwhile. Nothing
  /// goes on by itself: test() does what can be done without waiting, and returns whether the
  /// result is there. StateError where one has been started already, or none has.
  void start(ReduceOp op = ReduceOp::sum);
  bool test();
  void wait();

 private:
  struct [[gnu::visibility("hidden")]] Engine;
  std::unique_ptr<Engine> engine_;
};

}  // namespace lockstep

#pragma GCC visibility pop
