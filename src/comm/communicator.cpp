#include "lockstep/comm/communicator.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "comm/check.hpp"
#include "comm/element.hpp"
#include "comm/find_placement.hpp"
#include "comm/reduction.hpp"
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

bool mpi_is_finalized() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  return finalized != 0;
}

int free_parked(MPI_Comm, int, void* parked, void*) {
  auto* communicator = static_cast<MPI_Comm*>(parked);
  const int code = MPI_Comm_free(communicator);
  delete communicator;
  return code;
}

// Hands a communicator to MPI_COMM_SELF, whose attributes are deleted first of all in MPI_Finalize.
void park(MPI_Comm communicator) {
  int key = MPI_KEYVAL_INVALID;
  if (MPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, free_parked, &key, nullptr) != MPI_SUCCESS) {
    return;
  }
  MPI_Comm_set_attr(MPI_COMM_SELF, key, new MPI_Comm(communicator));
  MPI_Comm_free_keyval(&key);
}

}  // namespace

struct Communicator::Duplicate {
  // What short spans are copied through; two reductions are under way at most.
  static constexpr std::size_t staging_bytes = std::size_t{64} << 10;
  static constexpr std::size_t staging_capacity = 2;

  MPI_Comm communicator = MPI_COMM_NULL;
  CommunicatorOptions options;
  int rank = 0;
  int size = 1;
  std::optional<Placement> placement;          // once it was asked for
  std::unique_ptr<comm::Reduction> reduction;  // from the first all_reduce on

  Duplicate(MPI_Comm original, const CommunicatorOptions& options) : options(options) {
    check_mpi(MPI_Comm_dup(original, &communicator), "MPI_Comm_dup");
    check_mpi(MPI_Comm_set_errhandler(communicator, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check_mpi(MPI_Comm_rank(communicator, &rank), "MPI_Comm_rank");
    check_mpi(MPI_Comm_size(communicator, &size), "MPI_Comm_size");
  }
  ~Duplicate() {
    if (communicator != MPI_COMM_NULL && !mpi_is_finalized()) park(communicator);
  }
  Duplicate(const Duplicate&) = delete;
  Duplicate& operator=(const Duplicate&) = delete;

  MPI_Comm open() const {
    if (communicator == MPI_COMM_NULL) throw StateError("the communicator was closed");
    return communicator;
  }
};

Communicator::Communicator(MPI_Comm communicator, const CommunicatorOptions& options) {
  int initialized = 0;
  MPI_Initialized(&initialized);
  if (!initialized || mpi_is_finalized()) {
    throw StateError("a Communicator needs MPI between MPI_Init and MPI_Finalize");
  }
  if (communicator == MPI_COMM_NULL) throw OptionError("a Communicator of MPI_COMM_NULL");
  duplicate_ = std::make_shared<Duplicate>(communicator, options);
}

int Communicator::rank() const noexcept { return duplicate_->rank; }
int Communicator::size() const noexcept { return duplicate_->size; }
MPI_Comm Communicator::handle() const noexcept { return duplicate_->communicator; }

const CommunicatorOptions& Communicator::options() const noexcept { return duplicate_->options; }

const Placement& Communicator::placement() const {
  Duplicate& own = *duplicate_;
  if (!own.placement) own.placement = comm::find_placement(own.open(), own.options.node);
  return *own.placement;
}

Communicator Communicator::duplicate() const {
  return Communicator(duplicate_->open(), duplicate_->options);
}

void Communicator::close() {
  if (handle() == MPI_COMM_NULL) return;
  duplicate_->reduction.reset();
  check_mpi(MPI_Comm_free(&duplicate_->communicator), "MPI_Comm_free");
}

template <class T>
void Communicator::all_reduce(std::span<T> values, ReduceOp op) const {
  comm::check_operation<T>(op);
  Duplicate& own = *duplicate_;
  const MPI_Comm communicator = own.open();
  if (own.size == 1) return;
  if (own.reduction == nullptr) {
    own.reduction = std::make_unique<comm::Reduction>(*this, Duplicate::staging_bytes,
                                                      Duplicate::staging_capacity);
  }
  // The whole length is a part of the fingerprint of each piece.
  const auto reduce = [&](std::byte* data, std::size_t bytes) {
    const std::size_t lines = comm::whole_lines(std::max<std::size_t>(bytes, 1));
    if (bytes > 0) std::memcpy(own.reduction->segment(), data, bytes);
    std::memset(own.reduction->segment() + bytes, 0, lines - bytes);
    const comm::Piece piece{.element = comm::element_of<T>, .op = op, .offset = 0, .bytes = lines};
    own.reduction->start(
        {.pieces = {&piece, 1}, .count = values.size(), .average = op == ReduceOp::mean});
    own.reduction->wait();
    if (bytes > 0) std::memcpy(data, own.reduction->result(), bytes);
  };
  auto* data = reinterpret_cast<std::byte*>(values.data());
  const std::size_t bytes = values.size_bytes();
  constexpr bool has_mpi_type = !std::is_same_v<T, float16> && !std::is_same_v<T, bfloat16>;
  if constexpr (has_mpi_type) {
    if (bytes > Duplicate::staging_bytes) {
      reduce(data, 0);  // compares what the ranks are going to do
      in_pieces(values.size(), [&](std::size_t offset, int count) {
        check_mpi(MPI_Allreduce(MPI_IN_PLACE, values.data() + offset, count, mpi_type<T>(),
                                mpi_op(op), communicator),
                  "MPI_Allreduce");
      });
      if constexpr (std::is_floating_point_v<T>) {
        if (op == ReduceOp::mean) {
          for (T& value : values) value /= static_cast<T>(own.size);
        }
      }
      return;
    }
  }
  std::size_t done = 0;
  do {
    const std::size_t part = std::min(bytes - done, Duplicate::staging_bytes);
    reduce(data + done, part);
    done += part;
  } while (done < bytes);
}

template <class T>
void Communicator::broadcast(std::span<T> values, int root) const {
  broadcast_bytes(values.data(), values.size_bytes(), root);
}

void Communicator::broadcast_bytes(void* bytes, std::size_t size, int root) const {
  in_pieces(size, [&](std::size_t offset, int count) {
    check_mpi(MPI_Bcast(static_cast<std::byte*>(bytes) + offset, count, MPI_BYTE, root,
                        duplicate_->open()),
              "MPI_Bcast");
  });
}

void Communicator::broadcast(std::string& text, int root) const {
  auto size = static_cast<std::int64_t>(text.size());
  broadcast(std::span<std::int64_t>(&size, 1), root);
  text.resize(static_cast<std::size_t>(size));
  broadcast_bytes(text.data(), text.size(), root);
}

template <class T>
std::vector<T> Communicator::gather(std::span<const T> values, int root) const {
  std::vector<T> all(rank() == root ? values.size() * static_cast<std::size_t>(size()) : 0);
  const int count = checked_cast<int>(values.size(), "number of gathered elements");
  check_mpi(MPI_Gather(values.data(), count, mpi_type<T>(), all.data(), count, mpi_type<T>(), root,
                       duplicate_->open()),
            "MPI_Gather");
  return all;
}

std::vector<std::string> Communicator::gather(const std::string& text, int root) const {
  const auto length = static_cast<std::int64_t>(text.size());
  const std::vector<std::int64_t> lengths = gather(std::span<const std::int64_t>(&length, 1), root);
  constexpr int tag = 1;
  if (rank() != root) {
    in_pieces(text.size(), [&](std::size_t offset, int count) {
      check_mpi(MPI_Send(text.data() + offset, count, MPI_CHAR, root, tag, duplicate_->open()),
                "MPI_Send");
    });
    return {};
  }
  std::vector<std::string> all(lengths.size());
  for (int source = 0; source < size(); ++source) {
    std::string& received = all[static_cast<std::size_t>(source)];
    if (source == root) {
      received = text;
      continue;
    }
    received.resize(static_cast<std::size_t>(lengths[static_cast<std::size_t>(source)]));
    in_pieces(received.size(), [&](std::size_t offset, int count) {
      check_mpi(MPI_Recv(received.data() + offset, count, MPI_CHAR, source, tag, duplicate_->open(),
                         MPI_STATUS_IGNORE),
                "MPI_Recv");
    });
  }
  return all;
}

void Communicator::barrier() const { check_mpi(MPI_Barrier(duplicate_->open()), "MPI_Barrier"); }

void Communicator::agree(const std::function<void()>& work) const {
  duplicate_->open();
  ErrorReport report;
  std::int64_t failed = std::numeric_limits<std::int64_t>::max();
  try {
    work();
  } catch (const Error& error) {
    failed = rank();
    report = {error.kind(), error.what()};
    if (!error.collective()) report.message += " (rank " + std::to_string(rank()) + ")";
  } catch (...) {
    failed = rank();
    report = describe_current_exception();
    report.message += " (rank " + std::to_string(rank()) + ")";
  }
  const std::int64_t first = all_reduce(failed, ReduceOp::min);
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
