// The solver as a program: host SECONDS prints the median time of its steps in ms. Built once
// without lockstep, and once with all that it needs to train, which then does nothing.

#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "embedding/solver.hpp"

#ifdef WITH_LOCKSTEP
#include "embedding/surrogate.hpp"
#endif

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  const double seconds = argc == 2 ? std::atof(argv[1]) : 1;
  {
    Solver solver(MPI_COMM_WORLD);
#ifdef WITH_LOCKSTEP
    Surrogate surrogate(MPI_COMM_WORLD);
    surrogate.observe(solver);
    surrogate.trainer().train(3);
#endif
    using Clock = std::chrono::steady_clock;
    std::vector<double> times;
    solver.step();
    const auto start = Clock::now();
    for (int goes_on = 1; goes_on != 0;) {
      const auto begin = Clock::now();
      solver.step();
      const auto end = Clock::now();
      times.push_back(std::chrono::duration<double, std::milli>(end - begin).count());
      goes_on = end - start < std::chrono::duration<double>(seconds) ? 1 : 0;
      MPI_Bcast(&goes_on, 1, MPI_INT, 0, MPI_COMM_WORLD);
    }
    std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2),
                     times.end());
    if (rank == 0) std::printf("%.6f\n", times[times.size() / 2]);
  }
  MPI_Finalize();
}
