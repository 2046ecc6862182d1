#include "lockstep/comm/communicator.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>

#include "comm/calls.hpp"
#include "comm/check.hpp"
#include "comm/duplicate.hpp"
#include "comm/element.hpp"
#include "comm/find_placement.hpp"
#include "comm/place.hpp"
#include "comm/wait.hpp"
#include "lockstep/core/checked_cast.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep {
namespace {

// MPI counts are ints: longer spans travel in pieces of this many elements.
constexpr std::size_t max_count = std::size_t{1} << 30;

template <class T>
MPI_Datatype mpi_type();
template <>
MPI_Datatype mpi_type<float>() {
  return MPI_FLOAT;
}
template <>
MPI_Datatype mpi_type<double>() {
  return MPI_DOUBLE;
}
template <>
MPI_Datatype mpi_type<std::int64_t>() {
  return MPI_INT64_T;
}
template <>
MPI_Datatype mpi_type<std::uint8_t>() {
  return MPI_UINT8_T;
}

MPI_Op mpi_op(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum:
    case ReduceOp::mean:
      return MPI_SUM;
    case ReduceOp::max:
      return MPI_MAX;
    case ReduceOp::min:
      return MPI_MIN;
  }
  throw OptionError("unknown reduce operation");
}

// Calls piece(offset, count) until all of `size` is covered, and at least once.
template <class Piece>
void in_pieces(std::size_t size, Piece piece) {
  std::size_t offset = 0;
  do {
    const std::size_t count = std::min(max_count, size - offset);
    piece(offset, static_cast<int>(count));
    offset += count;
  } while (offset < size);
}

}  // namespace

int Communicator::rank() const noexcept { return duplicate_->rank; }
int Communicator::size() const noexcept { return duplicate_->size; }
MPI_Comm Communicator::handle() const noexcept { return duplicate_->kept->handle; }

const CommunicatorOptions& Communicator::options() const noexcept { return duplicate_->options; }

const Placement& Communicator::placement() const {
  Duplicate& own = *duplicate_;
  own.open();
  if (!own.placement) own.placement = comm::find_placement(*this);
  return *own.placement;
}

template <class T>
void Communicator::all_reduce(std::span<T> values, ReduceOp op) const {
  comm::check_operation<T>(op);
  const MPI_Comm communicator = duplicate_->open();
  comm::Calls* calls = comm::Calls::of(*this);
  if (calls == nullptr) return;
  // The whole length is a part of the fingerprint of each piece.
  const comm::Job job{.count = values.size()};
  auto* data = reinterpret_cast<std::byte*>(values.data());
  const std::size_t bytes = values.size_bytes();
  constexpr bool has_mpi_type = !std::is_same_v<T, float16> && !std::is_same_v<T, bfloat16>;
  if constexpr (has_mpi_type) {
    if (bytes > comm::Calls::short_bytes) {
      calls->combine(data, 0, comm::element_of<T>, op, job);
      in_pieces(values.size(), [&](std::size_t offset, int count) {
        MPI_Request request = MPI_REQUEST_NULL;
        check_mpi(MPI_Iallreduce(MPI_IN_PLACE, values.data() + offset, count, mpi_type<T>(),
                                 mpi_op(op), communicator, &request),
                  "MPI_Iallreduce");
        comm::Wait(*this).finish(request, "all ranks to reduce");
      });
      if constexpr (std::is_floating_point_v<T>) {
        if (op == ReduceOp::mean) {
          for (T& value : values) value /= static_cast<T>(size());
        }
      }
      return;
    }
  }
  std::size_t done = 0;
  do {
    const std::size_t part = std::min(bytes - done, comm::Calls::short_bytes);
    calls->combine(data + done, part, comm::element_of<T>, op, job);
    done += part;
  } while (done < bytes);
}

namespace {

std::uint32_t check_root(const Communicator& communicator, int root) {
  if (root >= 0 && root < communicator.size()) return static_cast<std::uint32_t>(root);
  throw OptionError(
      fmt::format("expected a root among {} ranks, found {}", communicator.size(), root));
}

// Without a count where `job` leaves it to the root.
void broadcast_values(const Communicator& communicator, std::byte* values, std::size_t size,
                      int root, comm::Job job) {
  job.call = comm::Call::broadcast;
  job.number = check_root(communicator, root);
  comm::Calls* calls = comm::Calls::of(communicator);
  if (calls == nullptr) return;
  if (size <= comm::Calls::short_bytes) {
    if (communicator.rank() != root && size > 0) std::memset(values, 0, size);
    return calls->combine(values, size, comm::Element::u8, ReduceOp::max, job);
  }
  calls->announce(job);
  in_pieces(size, [&](std::size_t offset, int count) {
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Ibcast(values + offset, count, MPI_BYTE, root, communicator.handle(), &request),
              "MPI_Ibcast");
    comm::Wait(communicator).finish(request, "the broadcast of", root);
  });
}

}  // namespace

template <class T>
void Communicator::broadcast(std::span<T> values, int root) const {
  duplicate_->open();
  broadcast_values(*this, reinterpret_cast<std::byte*>(values.data()), values.size_bytes(), root,
                   {.count = values.size(), .element = comm::element_of<T>});
}

void Communicator::broadcast_bytes(void* bytes, std::size_t size, int root) const {
  broadcast(std::span<std::uint8_t>(static_cast<std::uint8_t*>(bytes), size), root);
}

void Communicator::broadcast(std::string& text, int root) const {
  duplicate_->open();
  const auto send = [&](void* values, std::size_t size) {
    broadcast_values(*this, static_cast<std::byte*>(values), size, root, {});
  };
  auto size = static_cast<std::int64_t>(text.size());
  send(&size, sizeof(size));
  agree([&] { text.resize(static_cast<std::size_t>(size)); });
  if (size > 0) send(text.data(), text.size());
}

template <class T>
std::vector<T> Communicator::gather(std::span<const T> values, int root) const {
  const MPI_Comm communicator = duplicate_->open();
  const int count = checked_cast<int>(values.size(), "number of gathered elements");
  comm::Calls::announce(*this, {.call = comm::Call::gather,
                                .number = check_root(*this, root),
                                .count = values.size(),
                                .element = comm::element_of<T>});
  std::vector<T> all;
  agree([&] {
    if (rank() == root) all.resize(values.size() * static_cast<std::size_t>(size()));
  });
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Igather(values.data(), count, mpi_type<T>(), all.data(), count, mpi_type<T>(), root,
                        communicator, &request),
            "MPI_Igather");
  comm::Wait(*this).finish(request, all, "the gather to", root);
  return all;
}

std::vector<std::string> Communicator::gather(const std::string& text, int root) const {
  const MPI_Comm communicator = duplicate_->open();
  comm::Calls::announce(*this, {.call = comm::Call::gather, .number = check_root(*this, root)});
  const auto length = static_cast<std::int64_t>(text.size());
  const std::vector<std::int64_t> lengths = gather(std::span<const std::int64_t>(&length, 1), root);
  std::vector<std::string> all;
  agree([&] {
    all.resize(lengths.size());
    for (std::size_t i = 0; i < all.size(); ++i) {
      all[i].resize(static_cast<std::size_t>(lengths[i]));
    }
  });
  constexpr int tag = 1;
  if (rank() != root) {
    in_pieces(text.size(), [&](std::size_t offset, int count) {
      MPI_Request request = MPI_REQUEST_NULL;
      check_mpi(MPI_Isend(text.data() + offset, count, MPI_CHAR, root, tag, communicator, &request),
                "MPI_Isend");
      comm::Wait(*this).finish(request, "a text to reach", root);
    });
    return {};
  }
  for (int source = 0; source < size(); ++source) {
    std::string& received = all[static_cast<std::size_t>(source)];
    if (source == root) {
      received = text;
      continue;
    }
    in_pieces(received.size(), [&](std::size_t offset, int count) {
      MPI_Request request = MPI_REQUEST_NULL;
      check_mpi(
          MPI_Irecv(received.data() + offset, count, MPI_CHAR, source, tag, communicator, &request),
          "MPI_Irecv");
      comm::Wait(*this).finish(request, all, "the text of", source);
    });
  }
  return all;
}

void Communicator::barrier() const {
  duplicate_->open();
  comm::Calls::announce(*this, {.call = comm::Call::barrier});
}

namespace {

// What other ranks are told of the exception that is being handled.
ErrorReport report_of_rank(int rank, bool with_host) {
  const std::string of_rank =
      fmt::format(" (rank {}{})", rank, with_host ? " on " + comm::Place::host() : std::string());
  try {
    throw;
  } catch (const Error& error) {
    return {error.kind(), error.what() + (error.collective() ? std::string() : of_rank)};
  } catch (...) {
    ErrorReport report = describe_current_exception();
    report.message += of_rank;
    return report;
  }
}

}  // namespace

void Communicator::agree_on(const std::function<void()>& work) const {
  duplicate_->open();
  ErrorReport report;
  std::int64_t failed = std::numeric_limits<std::int64_t>::max();
  try {
    work();
  } catch (...) {
    failed = rank();
    try {
      const std::optional<Placement>& placement = duplicate_->placement;
      report = report_of_rank(rank(), placement && placement->nodes.size() > 1);
    } catch (const std::bad_alloc&) {
      report.message = "out of memory";  // as short as a string can be without any
    }
  }
  std::int64_t first = failed;
  if (comm::Calls* calls = comm::Calls::of(*this)) {
    calls->combine(reinterpret_cast<std::byte*>(&first), sizeof(first), comm::Element::i64,
                   ReduceOp::min, {.call = comm::Call::agreement});
  }
  if (first == std::numeric_limits<std::int64_t>::max()) return;
  const int culprit = static_cast<int>(first);
  auto kind = static_cast<std::uint8_t>(report.kind);
  broadcast(std::span<std::uint8_t>(&kind, 1), culprit);
  broadcast(report.message, culprit);
  report.kind = static_cast<ErrorKind>(kind);
  throw_collective(report);
}

#define LOCKSTEP_INSTANTIATE(T)                                            \
  template void Communicator::all_reduce<T>(std::span<T>, ReduceOp) const; \
  template void Communicator::broadcast<T>(std::span<T>, int) const;       \
  template std::vector<T> Communicator::gather<T>(std::span<const T>, int) const;
LOCKSTEP_INSTANTIATE(float)
LOCKSTEP_INSTANTIATE(double)
LOCKSTEP_INSTANTIATE(std::int64_t)
LOCKSTEP_INSTANTIATE(std::uint8_t)
#undef LOCKSTEP_INSTANTIATE
template void Communicator::all_reduce<float16>(std::span<float16>, ReduceOp) const;
template void Communicator::all_reduce<bfloat16>(std::span<bfloat16>, ReduceOp) const;

}  // namespace lockstep
