#pragma once

#include <lockstep/lockstep.hpp>
#include <span>
#include <vector>

#include "checkpoint/training.hpp"
#include "lockstep/testing/mpi_test.hpp"

LOCKSTEP_TEST_RANKS(2);

namespace lockstep {

using data::Batch;

/// What the snippets of docs/embedding.md take for granted: a solver.
class Snippets : public ::testing::Test {
 protected:
  Communicator own = testing::world().duplicate();
  MPI_Comm solver_comm = own.handle();
  testing::SharedFolder folder;
  const std::filesystem::path file = folder / "checkpoint";

  const std::int64_t cell_count = 10 + 5 * own.rank();
  std::vector<float> cell_values =
      std::vector<float>(static_cast<std::size_t>(3 * cell_count), 0.5F);
  Tensor cells = Tensor::full({cell_count, 3}, 0.5), sources = Tensor::full({cell_count, 2}, 2);
  std::vector<double> conductivity = std::vector<double>(20, 1.0);
  const std::int64_t nx = 4, ny = 6, first_row = 3 * own.rank();
  std::vector<double> temperature = std::vector<double>(12, 300.0);
  std::int64_t step = 7;
  double time = 0.5;

  static void solve_adjoint(double* gradient) { gradient[0] = 1; }
};

}  // namespace lockstep
