#include "comm/pull.hpp"

#include <limits>

#include "comm/check.hpp"

namespace lockstep::comm {
namespace {

constexpr int request_tag = 900, answer_tag = 901;

struct Request {
  std::uint64_t array, offset, bytes;
};
constexpr std::uint64_t no_more = std::numeric_limits<std::uint64_t>::max();

void send(const Request& request, int rank, MPI_Comm communicator) {
  check_mpi(MPI_Send(&request, sizeof(request), MPI_BYTE, rank, request_tag, communicator),
            "MPI_Send");
}

}  // namespace

MPI_Request Pull::start(int rank, std::uint64_t array, std::uint64_t offset,
                        std::span<std::byte> into) {
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Irecv(into.data(), static_cast<int>(into.size()), MPI_BYTE, rank, answer_tag,
                      communicator_, &request),
            "MPI_Irecv");
  send({.array = array, .offset = offset, .bytes = into.size()}, rank, communicator_);
  return request;
}

void Pull::wait(MPI_Request& request) {
  check_mpi(MPI_Wait(&request, MPI_STATUS_IGNORE), "MPI_Wait");
}

void Pull::end() {
  int own = 0, ranks = 0;
  check_mpi(MPI_Comm_rank(communicator_, &own), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(communicator_, &ranks), "MPI_Comm_size");
  for (int rank = 0; rank < ranks; ++rank) {
    if (rank != own) send({.array = no_more, .offset = 0, .bytes = 0}, rank, communicator_);
  }
}

void serve(const Communicator& communicator, int root,
           std::span<const std::span<const std::byte>> arrays) {
  while (true) {
    Request request;
    check_mpi(MPI_Recv(&request, sizeof(request), MPI_BYTE, root, request_tag,
                       communicator.handle(), MPI_STATUS_IGNORE),
              "MPI_Recv");
    if (request.array == no_more) return;
    const std::span<const std::byte> bytes =
        arrays[request.array].subspan(request.offset, request.bytes);
    check_mpi(MPI_Send(bytes.data(), static_cast<int>(bytes.size()), MPI_BYTE, root, answer_tag,
                       communicator.handle()),
              "MPI_Send");
  }
}

}  // namespace lockstep::comm
