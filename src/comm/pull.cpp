#include "comm/pull.hpp"

#include <limits>

#include "comm/check.hpp"
#include "comm/wait.hpp"

namespace lockstep::comm {
namespace {

constexpr int request_tag = 900, answer_tag = 901;

struct Request {
  std::uint64_t array, offset, bytes;
};
constexpr std::uint64_t no_more = std::numeric_limits<std::uint64_t>::max();

void send(const Request& wanted, int rank, const Communicator& communicator) {
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Isend(&wanted, sizeof(wanted), MPI_BYTE, rank, request_tag, communicator.handle(),
                      &request),
            "MPI_Isend");
  Wait(communicator).finish(request, "what is asked of it to reach", rank);
}

}  // namespace

MPI_Request Pull::start(int rank, std::uint64_t array, std::uint64_t offset,
                        std::span<std::byte> into) {
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Irecv(into.data(), static_cast<int>(into.size()), MPI_BYTE, rank, answer_tag,
                      communicator_.handle(), &request),
            "MPI_Irecv");
  send({.array = array, .offset = offset, .bytes = into.size()}, rank, communicator_);
  return request;
}

void Pull::wait(MPI_Request& request) {
  Wait(communicator_).finish(request, "bytes of other ranks");
}

void Pull::end() {
  for (int rank = 0; rank < communicator_.size(); ++rank) {
    if (rank == communicator_.rank()) continue;
    send({.array = no_more, .offset = 0, .bytes = 0}, rank, communicator_);
  }
}

void serve(const Communicator& communicator, int root,
           std::span<const std::span<const std::byte>> arrays) {
  while (true) {
    MessageValue<Request> received({});
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Irecv(&received.get(), sizeof(Request), MPI_BYTE, root, request_tag,
                        communicator.handle(), &request),
              "MPI_Irecv");
    Wait(communicator).finish(request, received, "the next request of", root);
    const Request wanted = received.get();
    if (wanted.array == no_more) return;
    const std::span<const std::byte> bytes =
        arrays[wanted.array].subspan(wanted.offset, wanted.bytes);
    check_mpi(MPI_Isend(bytes.data(), static_cast<int>(bytes.size()), MPI_BYTE, root, answer_tag,
                        communicator.handle(), &request),
              "MPI_Isend");
    Wait(communicator).finish(request, "bytes to reach", root);
  }
}

}  // namespace lockstep::comm
