#include "comm/messages.hpp"

#include <utility>

#include "comm/check.hpp"

namespace lockstep::comm {

bool abandon(std::vector<MPI_Request>& requests) noexcept {
  int finalized = 0;
  MPI_Finalized(&finalized);
  bool pending = false;
  for (MPI_Request& request : requests) {
    if (request == MPI_REQUEST_NULL || finalized != 0) continue;
    pending = true;
    MPI_Cancel(&request);
    MPI_Request_free(&request);
  }
  return pending;
}

Messages::~Messages() {
  if (!abandon(requests_)) return;
  static_cast<void>(outgoing_.memory.release());
  for (Buffer& buffer : incoming_) static_cast<void>(buffer.memory.release());
  if (kept_ != nullptr) static_cast<void>(new std::shared_ptr<void>(std::move(kept_)));
}

std::byte* Messages::Buffer::reserve(std::size_t bytes) {
  if (size < bytes) {
    memory.reset(new (std::align_val_t{line_bytes}) std::byte[bytes]);
    size = bytes;
  }
  return memory.get();
}

void Messages::send(const std::byte* data, std::size_t bytes, int rank, int tag) {
  ranks_.push_back(rank);
  check_mpi(MPI_Isend(data, static_cast<int>(bytes), MPI_BYTE, rank, tag, communicator_,
                      &requests_.emplace_back(MPI_REQUEST_NULL)),
            "MPI_Isend");
}

void Messages::receive(std::byte* data, std::size_t bytes, int rank, int tag) {
  ranks_.push_back(rank);
  check_mpi(MPI_Irecv(data, static_cast<int>(bytes), MPI_BYTE, rank, tag, communicator_,
                      &requests_.emplace_back(MPI_REQUEST_NULL)),
            "MPI_Irecv");
}

bool Messages::test() {
  int done = 0;
  check_mpi(
      MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, MPI_STATUSES_IGNORE),
      "MPI_Testall");
  if (done != 0) {
    requests_.clear();
    ranks_.clear();
  }
  return done != 0;
}

void Messages::add_missing(std::set<int>& ranks) const {
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    int done = 0;
    check_mpi(MPI_Request_get_status(requests_[i], &done, MPI_STATUS_IGNORE),
              "MPI_Request_get_status");
    if (done == 0) ranks.insert(ranks_[i]);
  }
}

}  // namespace lockstep::comm
