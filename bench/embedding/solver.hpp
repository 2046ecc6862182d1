#pragma once

#include <mpi.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

/// A simulation that lockstep is to leave alone: heat in a square, cut into bands of rows, one a
/// rank. A time step is some Jacobi sweeps, each with an exchange of rows between neighbours, and a
/// sum over all ranks.
class Solver {
 public:
  static constexpr std::size_t size = 400;
  static constexpr int sweeps = 20;

  Solver(const Solver&) = delete;
  Solver& operator=(const Solver&) = delete;
  explicit Solver(MPI_Comm communicator) : communicator_(communicator) {
    MPI_Comm_rank(communicator, &rank_);
    MPI_Comm_size(communicator, &ranks_);
    for (std::size_t i = 0; i < cells; ++i) {
      field_[i] = next_[i] = std::sin(static_cast<double>(i + static_cast<std::size_t>(rank_)));
    }
  }

  /// Returns the mean of the squares of the field, over all ranks.
  double step() {
    for (int sweep = 0; sweep < sweeps; ++sweep) {
      exchange();
      for (std::size_t row = 1; row <= size; ++row) {
        const double* above = &field_[(row - 1) * width];
        const double* here = &field_[row * width];
        const double* below = &field_[(row + 1) * width];
        double* next = &next_[row * width];
        for (std::size_t i = 1; i + 1 < width; ++i) {
          next[i] = here[i] + 0.2 * (above[i] + below[i] + here[i - 1] + here[i + 1] - 4 * here[i]);
        }
      }
      std::swap(field_, next_);
    }
    double sum = 0;
    for (std::size_t i = 0; i < cells; ++i) sum += field_[i] * field_[i];
    MPI_Allreduce(MPI_IN_PLACE, &sum, 1, MPI_DOUBLE, MPI_SUM, communicator_);
    return sum / static_cast<double>(cells) / ranks_;
  }

  const double* field() const { return field_; }

 private:
  static constexpr std::size_t width = size + 2, cells = width * width;
  // A page, and the distance of the two fields: how they lie to each other makes a step of up to half
  // the time longer, and would be up to what else a program has allocated.
  static constexpr std::size_t page = 512, distance = (cells / page + 1) * page + page / 2;

  static double* first_page(std::vector<double>& memory) {
    const auto address = reinterpret_cast<std::uintptr_t>(memory.data()) / sizeof(double);
    return memory.data() + (page - address % page) % page;
  }

  void exchange() {
    const int up = rank_ > 0 ? rank_ - 1 : MPI_PROC_NULL;
    const int down = rank_ + 1 < ranks_ ? rank_ + 1 : MPI_PROC_NULL;
    constexpr int count = static_cast<int>(width);
    MPI_Sendrecv(&field_[width], count, MPI_DOUBLE, up, 0, &field_[(size + 1) * width], count,
                 MPI_DOUBLE, down, 0, communicator_, MPI_STATUS_IGNORE);
    MPI_Sendrecv(&field_[size * width], count, MPI_DOUBLE, down, 1, field_, count, MPI_DOUBLE, up,
                 1, communicator_, MPI_STATUS_IGNORE);
  }

  MPI_Comm communicator_;
  int rank_ = 0, ranks_ = 1;
  std::vector<double> memory_ = std::vector<double>(2 * distance + page);
  double* field_ = first_page(memory_);
  double* next_ = field_ + distance;
};
