// What a simulation's MPI sees of lockstep: one duplication of its communicator, and nothing that
// is left.

#include <array>
#include <csignal>
#include <cstdlib>
#include <string>
#include <vector>

#include "comm/mpi_counts.hpp"
#include "comm/placements.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "train/whole_road.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {

using testing::arrangements;
using testing::mpi_counts;
using testing::MpiCounts;
using testing::watched_communicator;
using testing::whole_road;

// A communicator of the simulation's own, with the ranks in another order, in two halves where
// there are enough.
struct HostCommunicator : ::testing::Test {
  MPI_Comm host = MPI_COMM_NULL;

  void SetUp() override {
    int rank = 0, size = 0;
    PMPI_Comm_rank(MPI_COMM_WORLD, &rank);
    PMPI_Comm_size(MPI_COMM_WORLD, &size);
    PMPI_Comm_split(MPI_COMM_WORLD, size > 3 ? rank % 2 : 0, -rank, &host);
  }
  void TearDown() override { PMPI_Comm_free(&host); }
};

TEST_F(HostCommunicator, is_touched_by_its_duplication_alone) {
  watched_communicator = host;
  for (const testing::Arrangement& arrangement : arrangements()) {
    const MpiCounts before = mpi_counts;
    whole_road(host, arrangement.options);
    EXPECT_EQ(mpi_counts.watched_calls, before.watched_calls + 1) << arrangement.name;
    EXPECT_EQ(mpi_counts.world_calls, before.world_calls) << arrangement.name;
  }
  watched_communicator = MPI_COMM_NULL;
}

// One for each duplicate that belongs to an object without close(), whose destructor does not wait
// for other ranks; MPI_Finalize in mpi_counts.hpp ends the program with an error where one is left
// then.
TEST_F(HostCommunicator, has_duplicates_left_until_mpi_ends_and_nothing_else) {
  for (const testing::Arrangement& arrangement : arrangements()) {
    const MpiCounts before = mpi_counts;
    whole_road(host, arrangement.options);
    EXPECT_LE(mpi_counts.communicators, before.communicators + 7) << arrangement.name;
    EXPECT_EQ(mpi_counts.requests, before.requests) << arrangement.name;
    EXPECT_EQ(mpi_counts.windows, before.windows) << arrangement.name;
    EXPECT_EQ(mpi_counts.keyvals, before.keyvals) << arrangement.name;
  }
}

TEST_F(HostCommunicator, keeps_its_own_messages) {
  int rank = 0, size = 0;
  PMPI_Comm_rank(host, &rank);
  PMPI_Comm_size(host, &size);
  // What would take any message on it, and a reduction that began before.
  std::array<int, 2> received{-1, -1};
  std::array<MPI_Request, 2> receives{};
  for (std::size_t i = 0; i < 2; ++i) {
    PMPI_Irecv(&received[i], 1, MPI_INT, MPI_ANY_SOURCE, MPI_ANY_TAG, host, &receives[i]);
  }
  int sum = rank;
  MPI_Request reduction = MPI_REQUEST_NULL;
  PMPI_Iallreduce(MPI_IN_PLACE, &sum, 1, MPI_INT, MPI_SUM, host, &reduction);

  whole_road(host);

  int arrived = 0;
  PMPI_Testall(2, receives.data(), &arrived, MPI_STATUSES_IGNORE);
  EXPECT_EQ(arrived, 0);
  EXPECT_EQ(received, (std::array{-1, -1}));
  PMPI_Barrier(host);
  for (int i = 0; i < 2; ++i) {
    const int number = 10 * rank + i;
    PMPI_Send(&number, 1, MPI_INT, (rank + 1) % size, i, host);
  }
  PMPI_Waitall(2, receives.data(), MPI_STATUSES_IGNORE);
  const int from = (rank + size - 1) % size;
  EXPECT_EQ(received, (std::array{10 * from, 10 * from + 1}));
  PMPI_Wait(&reduction, MPI_STATUS_IGNORE);
  EXPECT_EQ(sum, size * (size - 1) / 2);
}

namespace {

int handled = 0;
void count_errors(MPI_Comm*, int*, ...) { ++handled; }

}  // namespace

TEST_F(HostCommunicator, keeps_its_error_handlers) {
  MPI_Errhandler own = MPI_ERRHANDLER_NULL;
  MPI_Comm_create_errhandler(count_errors, &own);
  std::array<MPI_Comm, 3> communicators{host, MPI_COMM_WORLD, MPI_COMM_SELF};
  std::array<MPI_Errhandler, 3> before{};
  for (std::size_t i = 0; i < 3; ++i) {
    PMPI_Comm_get_errhandler(communicators[i], &before[i]);
    PMPI_Comm_set_errhandler(communicators[i], own);
  }
  whole_road(host);
  EXPECT_EQ(handled, 0);
  for (std::size_t i = 0; i < 3; ++i) {
    MPI_Errhandler after = MPI_ERRHANDLER_NULL;
    PMPI_Comm_get_errhandler(communicators[i], &after);
    EXPECT_EQ(after, own);
    MPI_Errhandler_free(&after);
    PMPI_Comm_set_errhandler(communicators[i], before[i]);
    MPI_Errhandler_free(&before[i]);
  }
  MPI_Errhandler_free(&own);
}

TEST_F(HostCommunicator, is_one_of_several_that_train_at_once) {
  // The same surrogates one after another, and taking turns, on different communicators.
  Communicator ranks(host), all(MPI_COMM_WORLD), self(MPI_COMM_SELF);
  const std::vector<Communicator> communicators{ranks, all, self};
  std::vector<StateDict> alone;
  for (std::size_t i = 0; i < communicators.size(); ++i) {
    testing::Surrogate surrogate(communicators[i], i);
    for (int time = 0; time < 3; ++time) {
      surrogate.observe(time);
      surrogate.trainer().train(4);
    }
    alone.push_back(surrogate.values());
  }
  std::vector<std::unique_ptr<testing::Surrogate>> surrogates;
  for (std::size_t i = 0; i < communicators.size(); ++i) {
    surrogates.push_back(std::make_unique<testing::Surrogate>(communicators[i], i));
  }
  for (int time = 0; time < 3; ++time) {
    for (auto& surrogate : surrogates) surrogate->observe(time);
    for (int step = 0; step < 4; ++step) {
      for (auto& surrogate : surrogates) surrogate->trainer().train(1);
    }
  }
  for (std::size_t i = 0; i < communicators.size(); ++i) {
    EXPECT_TRUE(bit_equal(surrogates[i]->values(), alone[i])) << i;
  }
  surrogates.clear();
  ranks.close();
  all.close();
  self.close();
}

}  // namespace lockstep
