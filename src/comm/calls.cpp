#include "comm/calls.hpp"

#include <algorithm>
#include <cstring>

namespace lockstep::comm {
namespace {

// One that was started, and one that is made meanwhile.
constexpr std::size_t capacity = 2;

}  // namespace

Calls::Calls(const Communicator& communicator)
    : line_{.element = Element::u8,
            .op = ReduceOp::max,
            .offset = short_bytes,
            .bytes = line_bytes},
      reduction_(communicator, short_bytes + line_bytes, capacity) {}

void Calls::announce(const Communicator& communicator, const Job& job) {
  if (Calls* calls = of(communicator)) calls->announce(job);
}

void Calls::start(Job job) {
  job.pieces = {&line_, 1};
  reduction_.start(job);
}

void Calls::announce(const Job& job) {
  start(job);
  reduction_.wait();
}

void Calls::combine(std::byte* values, std::size_t bytes, Element element, ReduceOp op, Job job) {
  // Whole lines are combined, and nothing that an earlier call has left.
  const std::size_t lines = whole_lines(std::max<std::size_t>(bytes, 1));
  if (bytes > 0) std::memcpy(reduction_.segment(), values, bytes);
  std::memset(reduction_.segment() + bytes, 0, lines - bytes);
  values_ = {.element = element, .op = op, .offset = 0, .bytes = lines};
  job.pieces = {&values_, 1};
  job.average = op == ReduceOp::mean;
  reduction_.start(job);
  reduction_.wait();
  if (bytes > 0) std::memcpy(values, reduction_.result(), bytes);
}

}  // namespace lockstep::comm
