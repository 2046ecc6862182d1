#include "comm/duplicate.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "comm/check.hpp"
#include "comm/wait.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep {

void Communicator::Duplicate::make(MPI_Comm original) {
  std::shared_ptr<comm::KeptCommunicator> filled = kept;
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Comm_idup(original, &kept->handle, &request), "MPI_Comm_idup");
  comm::Wait(-1, options.deadline, true)
      .finish(request, filled, "all ranks to make a duplicate of the communicator");
  check_mpi(MPI_Comm_rank(kept->handle, &rank), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(kept->handle, &size), "MPI_Comm_size");
  check_mpi(MPI_Comm_set_errhandler(kept->handle, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
}

MPI_Comm Communicator::Duplicate::open() const {
  if (kept->handle == MPI_COMM_NULL) throw StateError("the communicator was closed");
  if (!may_call_mpi()) {
    const std::string message = describe_no_mpi("a collective call", rank);
    if (calls != nullptr) calls->set_failed(message);
    throw StateError(message);
  }
  return kept->handle;
}

Communicator::Communicator(std::shared_ptr<Duplicate> duplicate)
    : duplicate_(std::move(duplicate)) {}

Communicator::Communicator(MPI_Comm communicator, const CommunicatorOptions& options) {
  int initialized = 0, finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  if (!initialized || finalized) {
    throw StateError("a Communicator needs MPI between MPI_Init and MPI_Finalize");
  }
  if (communicator == MPI_COMM_NULL) throw OptionError("a Communicator of MPI_COMM_NULL");
  duplicate_ = std::make_shared<Duplicate>(options);
  duplicate_->make(communicator);
}

comm::Calls* comm::Calls::of(const Communicator& communicator) {
  Communicator::Duplicate& own = *communicator.duplicate_;
  if (own.size == 1 || own.kept->handle == MPI_COMM_NULL) return nullptr;
  if (own.calls == nullptr) own.calls = std::make_unique<Calls>(communicator);
  return own.calls.get();
}

const std::shared_ptr<comm::KeptCommunicator>& comm::Calls::kept(
    const Communicator& communicator) noexcept {
  return communicator.duplicate_->kept;
}

Communicator Communicator::duplicate() const {
  Duplicate& own = *duplicate_;
  const MPI_Comm communicator = own.open();
  comm::Calls::announce(*this, {.call = comm::Call::duplicate});
  free_dropped();
  std::shared_ptr<Duplicate> copy;
  agree([&] {
    copy = std::make_shared<Duplicate>(own.options);
    own.children.reserve(own.children.size() + 1);
  });
  copy->make(communicator);
  copy->placement = own.placement;
  own.children.push_back(copy->kept);
  return Communicator(std::move(copy));
}

void Communicator::free_dropped() const {
  auto& children = duplicate_->children;
  std::array<std::uint8_t, 64> dropped{};
  std::size_t left = 0;
  for (std::size_t begin = 0; begin < children.size(); begin += dropped.size()) {
    const std::size_t count = std::min(dropped.size(), children.size() - begin);
    for (std::size_t i = 0; i < count; ++i) {
      const auto& child = children[begin + i];
      dropped[i] = child.use_count() == 1 && child->settled;
    }
    all_reduce(std::span(dropped).first(count), ReduceOp::min);
    for (std::size_t i = 0; i < count; ++i) {
      auto& child = children[begin + i];
      if (dropped[i] == 0) {
        std::swap(children[left++], child);
      } else if (child->handle != MPI_COMM_NULL) {
        child->free();
      }
    }
  }
  children.resize(left);
}

void Communicator::close() {
  if (handle() == MPI_COMM_NULL) return;
  duplicate_->open();
  try {
    free_dropped();
  } catch (const StateError&) {
    // Nothing is agreed on any more: they are freed in MPI_Finalize.
  }
  duplicate_->children.clear();
  duplicate_->calls.reset();
  duplicate_->kept->free();
}

}  // namespace lockstep
