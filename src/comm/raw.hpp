#pragma once

#include <mpi.h>

#include <cstddef>
#include <string>
#include <vector>

#include "comm/check.hpp"
#include "comm/wait.hpp"

// Collective calls on which those of Communicator are built themselves. `ranks` says how long to wait.
namespace lockstep::comm {

// Without memory that may be lacking on one rank alone.
inline int minimum(const Communicator& ranks, MPI_Comm communicator, int value) {
  MessageValue<int> message(value);
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(
      MPI_Iallreduce(MPI_IN_PLACE, &message.get(), 1, MPI_INT, MPI_MIN, communicator, &request),
      "MPI_Iallreduce");
  Wait(ranks).finish(request, message, "all ranks to agree");
  return message.get();
}

/// The value of `root` on all ranks. T is plain data.
template <class T>
T broadcast_value(const Communicator& ranks, const T& value, int root) {
  MessageValue<T> message(value);
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Ibcast(&message.get(), sizeof(T), MPI_BYTE, root, ranks.handle(), &request),
            "MPI_Ibcast");
  Wait(ranks).finish(request, message, "the broadcast of", root);
  return message.get();
}

/// The text of `root` on all ranks.
inline std::string broadcast(const Communicator& ranks, const std::string& text, int root) {
  const std::size_t size = broadcast_value(ranks, text.size(), root);
  std::vector<char> letters(text.begin(), text.end());
  letters.resize(size);
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(
      MPI_Ibcast(letters.data(), static_cast<int>(size), MPI_CHAR, root, ranks.handle(), &request),
      "MPI_Ibcast");
  Wait(ranks).finish(request, letters, "the broadcast of", root);
  return {letters.begin(), letters.end()};
}

/// Every rank's value, in rank order, on all of them. T is plain data.
template <class T>
std::vector<T> all_gather(const Communicator& ranks, const T& value) {
  std::vector<T> values(static_cast<std::size_t>(ranks.size()));
  values[static_cast<std::size_t>(ranks.rank())] = value;
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Iallgather(MPI_IN_PLACE, 0, MPI_BYTE, values.data(), sizeof(T), MPI_BYTE,
                           ranks.handle(), &request),
            "MPI_Iallgather");
  Wait(ranks).finish(request, values, "what all ranks have to say");
  return values;
}

}  // namespace lockstep::comm
