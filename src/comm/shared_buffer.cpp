#include "lockstep/comm/shared_buffer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "comm/element.hpp"
#include "comm/reduction.hpp"

namespace lockstep {
namespace {

// Of so many numbers of a type, in whole lines.
std::size_t bytes_of(std::size_t size, comm::Element element) {
  constexpr std::size_t most = std::numeric_limits<std::size_t>::max() / 4;
  if (size > most / comm::item_size(element)) {
    throw_collective(
        {ErrorKind::other, fmt::format("no memory of {} {}", size, comm::to_string(element))});
  }
  return comm::whole_lines(std::max<std::size_t>(size * comm::item_size(element), 1));
}

}  // namespace

template <class T>
struct SharedBuffer<T>::Engine {
  Engine(const Communicator& parent, std::size_t size)
      : size(size),
        piece{.element = comm::element_of<T>,
              .op = ReduceOp::sum,
              .offset = 0,
              .bytes = bytes_of(size, comm::element_of<T>)},
        communicator(parent.duplicate()),
        reduction(communicator, piece.bytes, 2) {}

  void check_started(bool expected) const {
    if (started == expected) return;
    throw StateError(expected ? "no all-reduce of this buffer has been started"
                              : "an all-reduce of this buffer is under way");
  }

  std::size_t size;
  comm::Piece piece;
  Communicator communicator;
  comm::Reduction reduction;
  bool started = false;
};

template <class T>
SharedBuffer<T>::SharedBuffer(const Communicator& communicator, std::size_t size)
    : engine_(std::make_unique<Engine>(communicator, size)) {}

template <class T>
SharedBuffer<T>::~SharedBuffer() = default;
template <class T>
SharedBuffer<T>::SharedBuffer(SharedBuffer&&) noexcept = default;
template <class T>
SharedBuffer<T>& SharedBuffer<T>::operator=(SharedBuffer&&) noexcept = default;

template <class T>
std::size_t SharedBuffer<T>::size() const noexcept {
  return engine_->size;
}

template <class T>
bool SharedBuffer<T>::shared() const noexcept {
  return engine_->reduction.shared();
}

template <class T>
std::span<T> SharedBuffer<T>::values() noexcept {
  return {reinterpret_cast<T*>(engine_->reduction.segment()), engine_->size};
}

template <class T>
std::span<const T> SharedBuffer<T>::result() const noexcept {
  return {reinterpret_cast<const T*>(engine_->reduction.result()), engine_->size};
}

template <class T>
void SharedBuffer<T>::all_reduce(ReduceOp op) {
  start(op);
  wait();
}

template <class T>
void SharedBuffer<T>::start(ReduceOp op) {
  comm::check_operation<T>(op);
  Engine& engine = *engine_;
  engine.check_started(false);
  engine.piece.op = op;
  engine.reduction.start(
      {.pieces = {&engine.piece, 1}, .count = engine.size, .average = op == ReduceOp::mean});
  engine.started = true;
}

template <class T>
bool SharedBuffer<T>::test() {
  engine_->check_started(true);
  engine_->started = false;  // as it stays where this throws
  engine_->started = !engine_->reduction.poll();
  return !engine_->started;
}

template <class T>
void SharedBuffer<T>::wait() {
  engine_->check_started(true);
  engine_->started = false;
  engine_->reduction.wait();
}

template class SharedBuffer<float>;
template class SharedBuffer<double>;
template class SharedBuffer<std::int64_t>;
template class SharedBuffer<std::uint8_t>;
template class SharedBuffer<float16>;
template class SharedBuffer<bfloat16>;

}  // namespace lockstep
