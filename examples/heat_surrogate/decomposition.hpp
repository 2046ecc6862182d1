#pragma once

#include <mpi.h>

#include <array>
#include <cstddef>
#include <vector>

/// Some rows and columns of all cells.
struct Block {
  int row = 0, column = 0;  ///< the first
  int rows = 0, columns = 0;
};

/// A square of n × n cells, cut into blocks along both axes: one for each rank of a Cartesian
/// communicator of its own. A field is an array of a rank's cells, row by row, with a border of one
/// cell around them. All calls but the queries are collective.
class Decomposition {
 public:
  /// lockstep::OptionError on all ranks where there are fewer rows or columns than ranks along
  /// them.
  Decomposition(MPI_Comm communicator, int cells);
  Decomposition(const Decomposition&) = delete;
  Decomposition& operator=(const Decomposition&) = delete;

  /// Frees the communicator; the end of all calls.
  void close();

  MPI_Comm communicator() const noexcept { return communicator_; }
  int cells() const noexcept { return cells_; }
  /// Ranks along rows and columns.
  std::array<int, 2> ranks() const noexcept { return ranks_; }
  const Block& block() const noexcept { return block_; }
  std::size_t field_size() const noexcept { return index(block_.rows, block_.columns) + 1; }
  /// Where a field has a cell of the block; -1, rows and columns are those of the border.
  std::size_t index(int row, int column) const noexcept {
    return static_cast<std::size_t>((row + 1) * (block_.columns + 2) + column + 1);
  }

  /// Fills the border with the neighbours' cells, and at walls with those beside it. Not the
  /// corners.
  void exchange_border(std::vector<double>& field) const;

  /// The whole rows of all cells that are this rank's in a checkpoint: a contiguous range, unlike
  /// its block.
  const Block& slab() const noexcept { return slabs_[static_cast<std::size_t>(rank_)]; }
  /// Redistributes a field from blocks to slabs, and back.
  void to_rows(const std::vector<double>& field, double* rows) const;
  void from_rows(const double* rows, std::vector<double>& field) const;
  /// All cells on rank 0, and nothing on the others.
  std::vector<double> gather(const std::vector<double>& field) const;

 private:
  int cells_;
  int rank_ = 0, size_ = 1;
  std::array<int, 2> ranks_{};
  MPI_Comm communicator_ = MPI_COMM_NULL;
  std::vector<Block> blocks_, slabs_;  // of all ranks
  Block block_;
};
