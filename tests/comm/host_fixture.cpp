// A host that has its own MPI, for host_test.py: it ends MPI, still reads what it has reduced, and
// drops the objects of lockstep then, gradient reducers among them; or calls from another thread.
// Arguments: shared or ordinary memory; how many nodes to see; and how the objects end.
#include <mpi.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/comm/shared_buffer.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/parallel/gradient_reducer.hpp"

using lockstep::Communicator;
using lockstep::GradientReducer;
using lockstep::NamedParameter;
using lockstep::Parameter;
using lockstep::SharedBuffer;
using lockstep::Tensor;

namespace {

constexpr std::size_t size = 30000;

struct Reduced {
  std::unique_ptr<Communicator> ranks;
  std::unique_ptr<SharedBuffer<double>> buffer;
  std::vector<NamedParameter> parameters;
  std::unique_ptr<GradientReducer> reducer;
};

void compute_gradients(Reduced& one, std::size_t parameters) {
  for (std::size_t i = 0; i < parameters; ++i) {
    Parameter& parameter = one.parameters[i].parameter;
    parameter.mutable_grad().fill(one.ranks->rank());
    one.reducer->mark_ready(parameter);
  }
}

bool has_sum(const Reduced& one, int size_of_job) {
  const double sum = size_of_job * (size_of_job + 1) / 2.0;
  const Tensor& gradient = one.parameters.front().parameter.grad();
  return gradient.rows(size - 1, size).item() == (size_of_job - 1) / 2.0 &&
         std::all_of(one.buffer->result().begin(), one.buffer->result().end(),
                     [&](double number) { return number == sum; });
}

Reduced reduce(const lockstep::CommunicatorOptions& options) {
  Reduced one;
  one.ranks = std::make_unique<Communicator>(MPI_COMM_WORLD, options);
  one.buffer = std::make_unique<SharedBuffer<double>>(*one.ranks, size);
  std::fill(one.buffer->values().begin(), one.buffer->values().end(), one.ranks->rank() + 1.0);
  one.buffer->all_reduce();
  one.ranks->all_reduce(1.0);
  for (const char* name : {"a", "b"}) {
    one.parameters.emplace_back(Parameter(name, Tensor::zeros({size})));
  }
  one.reducer = std::make_unique<GradientReducer>(
      one.parameters, *one.ranks, lockstep::GradientReducerOptions{.bucket_bytes = 1000});
  compute_gradients(one, 2);
  one.reducer->finish();
  return one;
}

void drop(std::vector<Reduced>& all, int rank) {
  // In another order on each rank, and the communicator before its buffer on some.
  std::rotate(all.begin(), all.begin() + rank % static_cast<int>(all.size()), all.end());
  for (Reduced& one : all) {
    if (rank % 2 == 0) one.ranks.reset();
    if (rank % 3 == 0) one.parameters.clear();
    one.buffer.reset();
    one.reducer.reset();
    one.ranks.reset();
  }
}

// The last rank does its part on a thread that must not call MPI, whose level is MPI_Init's.
void use_another_thread(const lockstep::CommunicatorOptions& options, bool reduces) {
  Reduced one = reduce(options);
  const auto part = [&] {
    try {
      if (!reduces) return one.ranks->barrier();
      compute_gradients(one, 2);
      one.reducer->finish();
    } catch (const lockstep::StateError& error) {
      std::printf("%s\n", error.what());
    }
  };
  if (one.ranks->rank() == one.ranks->size() - 1) {
    std::thread(part).join();
  } else {
    part();
  }
}

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  if (argc != 4) return 2;
  const std::string end = argv[3];
  int rank = 0, ranks = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  const lockstep::CommunicatorOptions options{.share_memory = std::string(argv[1]) == "shared",
                                              .node = rank % std::atoi(argv[2])};
  if (end == "thread-reduces" || end == "thread-waits") {
    use_another_thread(options, end == "thread-reduces");
    MPI_Finalize();
    return 0;
  }
  std::vector<Reduced> all;
  for (int i = 0; i < 4; ++i) all.push_back(reduce(options));
  if (end == "closed") {
    for (Reduced& one : all) one.ranks->close();
  }
  if (end == "dropped-before") drop(all, rank);
  // Of what all ranks have announced, some is never waited for.
  if (end == "under-way") {
    for (Reduced& one : all) {
      one.buffer->start();
      compute_gradients(one, 1);
    }
  }
  MPI_Finalize();
  if (end != "dropped-before" && end != "under-way") {
    for (const Reduced& one : all) {
      if (!has_sum(one, ranks)) return 3;
    }
  }
  if (end != "dropped-before") drop(all, rank);
  std::fputs("ended\n", stdout);  // by one write, which MPICH makes no buffer for
  return 0;
}
