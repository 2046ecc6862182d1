#include "lockstep/comm/communicator.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "comm/check.hpp"
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
  MPI_Comm communicator = MPI_COMM_NULL;
  int rank = 0;
  int size = 1;

  explicit Duplicate(MPI_Comm original) {
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

Communicator::Communicator(MPI_Comm communicator) {
  int initialized = 0;
  MPI_Initialized(&initialized);
  if (!initialized || mpi_is_finalized()) {
    throw StateError("a Communicator needs MPI between MPI_Init and MPI_Finalize");
  }
  if (communicator == MPI_COMM_NULL) throw OptionError("a Communicator of MPI_COMM_NULL");
  duplicate_ = std::make_shared<Duplicate>(communicator);
}

int Communicator::rank() const noexcept { return duplicate_->rank; }
int Communicator::size() const noexcept { return duplicate_->size; }
MPI_Comm Communicator::handle() const noexcept { return duplicate_->communicator; }

Communicator Communicator::duplicate() const { return Communicator(duplicate_->open()); }

void Communicator::close() {
  if (handle() == MPI_COMM_NULL) return;
  check_mpi(MPI_Comm_free(&duplicate_->communicator), "MPI_Comm_free");
}

template <class T>
void Communicator::all_reduce(std::span<T> values, ReduceOp op) const {
  in_pieces(values.size(), [&](std::size_t offset, int count) {
    check_mpi(MPI_Allreduce(MPI_IN_PLACE, values.data() + offset, count, mpi_type<T>(), mpi_op(op),
                            duplicate_->open()),
              "MPI_Allreduce");
  });
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

}  // namespace lockstep
