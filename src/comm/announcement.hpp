#pragma once

#include <cstdint>
#include <string>

#include "comm/combine.hpp"

namespace lockstep::comm {

/// What the ranks are about to do together.
enum class Call : std::uint8_t {
  reduction,
  broadcast,
  gather,
  barrier,
  agreement,  ///< Communicator::agree
  duplicate,
  save,  ///< of a checkpoint
  load,
  gradients,  ///< the reduction of all gradients of a reducer, whose buckets are `reduction`s
};

/// What a rank says of a collective call before it takes part in it. All ranks must say the same of
/// the same one, except for `weight` and `rank`.
struct Announcement {
  std::uint64_t sequence = 0;  ///< counts the calls of one engine, from 1
  std::uint64_t hash = 0;      ///< of whatever else must agree, such as names and layout
  std::uint64_t bytes = 0;     ///< of each rank's numbers, in whole lines
  std::uint64_t count = 0;     ///< of the caller's elements; 0 where there are several kinds
  double weight = 1;           ///< of this rank's numbers in a sum
  std::uint32_t number = 0;    ///< of a bucket or reducer, or the root of a call
  std::int32_t rank = 0;       ///< who says it
  Element element = Element::f32;
  ReduceOp op = ReduceOp::sum;
  Call call = Call::reduction;

  bool agrees_with(const Announcement& other) const noexcept {
    return sequence == other.sequence && hash == other.hash && bytes == other.bytes &&
           count == other.count && number == other.number && element == other.element &&
           op == other.op && call == other.call;
  }
};

/// "rank 1 makes call 7: sum of 400 f32", or "rank 1 makes call 7: bucket 0 of 4096 bytes (layout …)"
std::string describe(const Announcement& announcement);

/// "call 7: barrier"
std::string describe_call(const Announcement& announcement);

/// What an error says of two that do not agree.
std::string describe_difference(const Announcement& a, const Announcement& b);

}  // namespace lockstep::comm
