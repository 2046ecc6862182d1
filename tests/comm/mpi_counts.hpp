#pragma once

// Counts, through MPI's profiling interface, what a test program and the library in it make and
// free. To be included in one file of a program.

#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace lockstep::testing {

struct MpiCounts {
  int communicators = 0, requests = 0, windows = 0, keyvals = 0,
      groups = 0;         // made and not yet freed
  int world_calls = 0;    // on MPI_COMM_WORLD itself
  int watched_calls = 0;  // on watched_communicator
  int messages = 0;       // sent

  friend bool operator==(const MpiCounts&, const MpiCounts&) = default;
};

inline MpiCounts mpi_counts;
inline MPI_Comm watched_communicator = MPI_COMM_NULL;

inline MPI_Comm seen(MPI_Comm communicator) {
  if (communicator == MPI_COMM_WORLD) ++mpi_counts.world_calls;
  if (communicator == watched_communicator) ++mpi_counts.watched_calls;
  return communicator;
}

inline int made(int code, int& count) {
  if (code == MPI_SUCCESS) ++count;
  return code;
}

inline int freed(int code, int& count) {
  if (code == MPI_SUCCESS) --count;
  return code;
}

/// Calls something that may complete requests, and counts those that are null afterwards.
template <class Call>
int completing(int count, MPI_Request* requests, Call call) {
  const auto nulls = [&] {
    return static_cast<int>(std::count(requests, requests + count, MPI_REQUEST_NULL));
  };
  const int before = nulls();
  const int code = call();
  mpi_counts.requests -= nulls() - before;
  return code;
}

}  // namespace lockstep::testing

// NOLINTBEGIN: the names are MPI's.
extern "C" {

int MPI_Comm_dup(MPI_Comm old, MPI_Comm* made) {
  using namespace lockstep::testing;
  return lockstep::testing::made(PMPI_Comm_dup(seen(old), made), mpi_counts.communicators);
}
int MPI_Comm_idup(MPI_Comm old, MPI_Comm* copy, MPI_Request* request) {
  using namespace lockstep::testing;
  return made(made(PMPI_Comm_idup(seen(old), copy, request), mpi_counts.communicators),
              mpi_counts.requests);
}
int MPI_Comm_split(MPI_Comm old, int colour, int key, MPI_Comm* part) {
  using namespace lockstep::testing;
  const int code = PMPI_Comm_split(seen(old), colour, key, part);
  if (code == MPI_SUCCESS && *part != MPI_COMM_NULL) ++mpi_counts.communicators;
  return code;
}
int MPI_Comm_split_type(MPI_Comm old, int type, int key, MPI_Info info, MPI_Comm* part) {
  using namespace lockstep::testing;
  return made(PMPI_Comm_split_type(seen(old), type, key, info, part), mpi_counts.communicators);
}
int MPI_Comm_group(MPI_Comm communicator, MPI_Group* group) {
  using namespace lockstep::testing;
  return made(PMPI_Comm_group(seen(communicator), group), mpi_counts.groups);
}
int MPI_Group_free(MPI_Group* group) {
  using namespace lockstep::testing;
  return freed(PMPI_Group_free(group), mpi_counts.groups);
}
int MPI_Comm_free(MPI_Comm* communicator) {
  using namespace lockstep::testing;
  return freed(PMPI_Comm_free(communicator), mpi_counts.communicators);
}
int MPI_Comm_create_keyval(MPI_Comm_copy_attr_function* copy, MPI_Comm_delete_attr_function* drop,
                           int* key, void* state) {
  using namespace lockstep::testing;
  return made(PMPI_Comm_create_keyval(copy, drop, key, state), mpi_counts.keyvals);
}
int MPI_Comm_free_keyval(int* key) {
  using namespace lockstep::testing;
  return freed(PMPI_Comm_free_keyval(key), mpi_counts.keyvals);
}
int MPI_Comm_set_errhandler(MPI_Comm communicator, MPI_Errhandler handler) {
  return PMPI_Comm_set_errhandler(lockstep::testing::seen(communicator), handler);
}
int MPI_Comm_rank(MPI_Comm communicator, int* rank) {
  return PMPI_Comm_rank(lockstep::testing::seen(communicator), rank);
}
int MPI_Comm_size(MPI_Comm communicator, int* size) {
  return PMPI_Comm_size(lockstep::testing::seen(communicator), size);
}

int MPI_Isend(const void* data, int count, MPI_Datatype type, int to, int tag, MPI_Comm where,
              MPI_Request* request) {
  using namespace lockstep::testing;
  ++mpi_counts.messages;
  return made(PMPI_Isend(data, count, type, to, tag, seen(where), request), mpi_counts.requests);
}
int MPI_Irecv(void* data, int count, MPI_Datatype type, int from, int tag, MPI_Comm where,
              MPI_Request* request) {
  using namespace lockstep::testing;
  return made(PMPI_Irecv(data, count, type, from, tag, seen(where), request), mpi_counts.requests);
}
int MPI_Ibarrier(MPI_Comm where, MPI_Request* request) {
  using namespace lockstep::testing;
  return made(PMPI_Ibarrier(seen(where), request), mpi_counts.requests);
}
int MPI_Ibcast(void* data, int count, MPI_Datatype type, int root, MPI_Comm where,
               MPI_Request* request) {
  using namespace lockstep::testing;
  return made(PMPI_Ibcast(data, count, type, root, seen(where), request), mpi_counts.requests);
}
int MPI_Iallreduce(const void* from, void* to, int count, MPI_Datatype type, MPI_Op op,
                   MPI_Comm where, MPI_Request* request) {
  using namespace lockstep::testing;
  return made(PMPI_Iallreduce(from, to, count, type, op, seen(where), request),
              mpi_counts.requests);
}
int MPI_Iallgather(const void* from, int sent, MPI_Datatype sent_type, void* to, int received,
                   MPI_Datatype received_type, MPI_Comm where, MPI_Request* request) {
  using namespace lockstep::testing;
  return made(
      PMPI_Iallgather(from, sent, sent_type, to, received, received_type, seen(where), request),
      mpi_counts.requests);
}
int MPI_Igather(const void* from, int sent, MPI_Datatype sent_type, void* to, int received,
                MPI_Datatype received_type, int root, MPI_Comm where, MPI_Request* request) {
  using namespace lockstep::testing;
  return made(
      PMPI_Igather(from, sent, sent_type, to, received, received_type, root, seen(where), request),
      mpi_counts.requests);
}
int MPI_Request_get_status(MPI_Request request, int* done, MPI_Status* status) {
  return PMPI_Request_get_status(request, done, status);
}
int MPI_Test(MPI_Request* request, int* done, MPI_Status* status) {
  return lockstep::testing::completing(1, request,
                                       [&] { return PMPI_Test(request, done, status); });
}
int MPI_Testall(int count, MPI_Request requests[], int* done, MPI_Status statuses[]) {
  return lockstep::testing::completing(
      count, requests, [&] { return PMPI_Testall(count, requests, done, statuses); });
}
int MPI_Testany(int count, MPI_Request requests[], int* index, int* done, MPI_Status* status) {
  return lockstep::testing::completing(
      count, requests, [&] { return PMPI_Testany(count, requests, index, done, status); });
}
int MPI_Testsome(int count, MPI_Request requests[], int* completed, int indices[],
                 MPI_Status statuses[]) {
  return lockstep::testing::completing(count, requests, [&] {
    return PMPI_Testsome(count, requests, completed, indices, statuses);
  });
}
int MPI_Wait(MPI_Request* request, MPI_Status* status) {
  return lockstep::testing::completing(1, request, [&] { return PMPI_Wait(request, status); });
}
int MPI_Waitall(int count, MPI_Request requests[], MPI_Status statuses[]) {
  return lockstep::testing::completing(count, requests,
                                       [&] { return PMPI_Waitall(count, requests, statuses); });
}
int MPI_Waitany(int count, MPI_Request requests[], int* index, MPI_Status* status) {
  return lockstep::testing::completing(
      count, requests, [&] { return PMPI_Waitany(count, requests, index, status); });
}
int MPI_Waitsome(int count, MPI_Request requests[], int* completed, int indices[],
                 MPI_Status statuses[]) {
  return lockstep::testing::completing(count, requests, [&] {
    return PMPI_Waitsome(count, requests, completed, indices, statuses);
  });
}
int MPI_Request_free(MPI_Request* request) {
  return lockstep::testing::completing(1, request, [&] { return PMPI_Request_free(request); });
}

int MPI_Win_create(void* base, MPI_Aint size, int unit, MPI_Info info, MPI_Comm where,
                   MPI_Win* window) {
  using namespace lockstep::testing;
  return made(PMPI_Win_create(base, size, unit, info, seen(where), window), mpi_counts.windows);
}
int MPI_Win_allocate(MPI_Aint size, int unit, MPI_Info info, MPI_Comm where, void* base,
                     MPI_Win* window) {
  using namespace lockstep::testing;
  return made(PMPI_Win_allocate(size, unit, info, seen(where), base, window), mpi_counts.windows);
}
int MPI_Win_allocate_shared(MPI_Aint size, int unit, MPI_Info info, MPI_Comm where, void* base,
                            MPI_Win* window) {
  using namespace lockstep::testing;
  return made(PMPI_Win_allocate_shared(size, unit, info, seen(where), base, window),
              mpi_counts.windows);
}
int MPI_Win_free(MPI_Win* window) {
  return lockstep::testing::freed(PMPI_Win_free(window), lockstep::testing::mpi_counts.windows);
}

int MPI_Allreduce(const void* from, void* to, int count, MPI_Datatype type, MPI_Op op,
                  MPI_Comm where) {
  return PMPI_Allreduce(from, to, count, type, op, lockstep::testing::seen(where));
}
int MPI_Allgather(const void* from, int count, MPI_Datatype type, void* to, int each,
                  MPI_Datatype to_type, MPI_Comm where) {
  return PMPI_Allgather(from, count, type, to, each, to_type, lockstep::testing::seen(where));
}
int MPI_Gather(const void* from, int count, MPI_Datatype type, void* to, int each,
               MPI_Datatype to_type, int root, MPI_Comm where) {
  return PMPI_Gather(from, count, type, to, each, to_type, root, lockstep::testing::seen(where));
}
int MPI_Bcast(void* data, int count, MPI_Datatype type, int root, MPI_Comm where) {
  return PMPI_Bcast(data, count, type, root, lockstep::testing::seen(where));
}
int MPI_Comm_set_attr(MPI_Comm where, int key, void* value) {
  return PMPI_Comm_set_attr(lockstep::testing::seen(where), key, value);
}
int MPI_Iprobe(int from, int tag, MPI_Comm where, int* found, MPI_Status* status) {
  return PMPI_Iprobe(from, tag, lockstep::testing::seen(where), found, status);
}
int MPI_Barrier(MPI_Comm where) { return PMPI_Barrier(lockstep::testing::seen(where)); }
int MPI_Send(const void* data, int count, MPI_Datatype type, int to, int tag, MPI_Comm where) {
  ++lockstep::testing::mpi_counts.messages;
  return PMPI_Send(data, count, type, to, tag, lockstep::testing::seen(where));
}
int MPI_Recv(void* data, int count, MPI_Datatype type, int from, int tag, MPI_Comm where,
             MPI_Status* status) {
  return PMPI_Recv(data, count, type, from, tag, lockstep::testing::seen(where), status);
}

// Ends the program with another status where something is left when MPI is.
int MPI_Finalize() {
  using lockstep::testing::mpi_counts;
  const int code = PMPI_Finalize();
  if (mpi_counts.communicators == 0 && mpi_counts.requests == 0 && mpi_counts.windows == 0 &&
      mpi_counts.keyvals == 0) {
    return code;
  }
  std::fprintf(
      stderr, "left after MPI_Finalize: %d communicators, %d requests, %d windows, %d keys\n",
      mpi_counts.communicators, mpi_counts.requests, mpi_counts.windows, mpi_counts.keyvals);
  _exit(70);
}

}  // extern "C"
// NOLINTEND
