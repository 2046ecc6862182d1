#include "decomposition.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <lockstep/core/error.hpp>
#include <lockstep/core/part_begin.hpp>

namespace {

int begin_of(int cells, int part, int parts) {
  return static_cast<int>(lockstep::part_begin(cells, part, parts));
}

// The cells that two blocks have in common; no rows or columns where there are none.
Block common(const Block& a, const Block& b) {
  const int row = std::max(a.row, b.row), column = std::max(a.column, b.column);
  return {row, column, std::max(0, std::min(a.row + a.rows, b.row + b.rows) - row),
          std::max(0, std::min(a.column + a.columns, b.column + b.columns) - column)};
}

// For an MPI_Alltoallw: a part of one array for each rank.
class Parts {
 public:
  // Those cells of the array of `own`, which has a border of so many cells, that are in `others`.
  Parts(const Block& own, int border, const std::vector<Block>& others)
      : counts(others.size()), displacements(others.size()), types(others.size(), MPI_DOUBLE) {
    const int sizes[2] = {own.rows + 2 * border, own.columns + 2 * border};
    for (std::size_t rank = 0; rank < others.size(); ++rank) {
      const Block part = common(own, others[rank]);
      if (part.rows == 0 || part.columns == 0) continue;
      const int extents[2] = {part.rows, part.columns};
      const int starts[2] = {part.row - own.row + border, part.column - own.column + border};
      MPI_Type_create_subarray(2, sizes, extents, starts, MPI_ORDER_C, MPI_DOUBLE, &types[rank]);
      MPI_Type_commit(&types[rank]);
      counts[rank] = 1;
    }
  }
  ~Parts() {
    for (std::size_t rank = 0; rank < types.size(); ++rank) {
      if (counts[rank] == 1) MPI_Type_free(&types[rank]);
    }
  }
  Parts(const Parts&) = delete;
  Parts& operator=(const Parts&) = delete;

  std::vector<int> counts, displacements;
  std::vector<MPI_Datatype> types;
};

void exchange(const double* from, const Parts& sent, double* to, const Parts& received,
              MPI_Comm communicator) {
  MPI_Alltoallw(from, sent.counts.data(), sent.displacements.data(), sent.types.data(), to,
                received.counts.data(), received.displacements.data(), received.types.data(),
                communicator);
}

}  // namespace

Decomposition::Decomposition(MPI_Comm communicator, int cells) : cells_(cells) {
  MPI_Comm_size(communicator, &size_);
  MPI_Dims_create(size_, 2, ranks_.data());
  if (cells < ranks_[0]) {  // the larger one
    lockstep::throw_collective(
        {lockstep::ErrorKind::option,
         fmt::format("{} × {} ranks need at least {} cells along each axis, found {}", ranks_[0],
                     ranks_[1], ranks_[0], cells)});
  }
  const int walls[2] = {0, 0};
  MPI_Cart_create(communicator, 2, ranks_.data(), walls, 0, &communicator_);
  MPI_Comm_rank(communicator_, &rank_);
  for (int rank = 0; rank < size_; ++rank) {
    int at[2];
    MPI_Cart_coords(communicator_, rank, 2, at);
    const int row = begin_of(cells, at[0], ranks_[0]);
    const int column = begin_of(cells, at[1], ranks_[1]);
    blocks_.push_back({row, column, begin_of(cells, at[0] + 1, ranks_[0]) - row,
                       begin_of(cells, at[1] + 1, ranks_[1]) - column});
    const int slab = begin_of(cells, rank, size_);
    slabs_.push_back({slab, 0, begin_of(cells, rank + 1, size_) - slab, cells});
  }
  block_ = blocks_[static_cast<std::size_t>(rank_)];
}

void Decomposition::close() { MPI_Comm_free(&communicator_); }

void Decomposition::exchange_border(std::vector<double>& field) const {
  const int last_row = block_.rows - 1, last_column = block_.columns - 1;
  for (int column = 0; column <= last_column; ++column) {
    field[index(-1, column)] = field[index(0, column)];
    field[index(last_row + 1, column)] = field[index(last_row, column)];
  }
  for (int row = 0; row <= last_row; ++row) {
    field[index(row, -1)] = field[index(row, 0)];
    field[index(row, last_column + 1)] = field[index(row, last_column)];
  }

  MPI_Datatype column_type;
  MPI_Type_vector(block_.rows, 1, block_.columns + 2, MPI_DOUBLE, &column_type);
  MPI_Type_commit(&column_type);
  const auto shift = [&](int axis, int count, MPI_Datatype type, std::size_t first,
                         std::size_t last, std::size_t before, std::size_t after) {
    int lower, upper;  // MPI_PROC_NULL beyond a wall
    MPI_Cart_shift(communicator_, axis, 1, &lower, &upper);
    MPI_Sendrecv(&field[last], count, type, upper, axis, &field[before], count, type, lower, axis,
                 communicator_, MPI_STATUS_IGNORE);
    MPI_Sendrecv(&field[first], count, type, lower, axis, &field[after], count, type, upper, axis,
                 communicator_, MPI_STATUS_IGNORE);
  };
  shift(0, block_.columns, MPI_DOUBLE, index(0, 0), index(last_row, 0), index(-1, 0),
        index(last_row + 1, 0));
  shift(1, 1, column_type, index(0, 0), index(0, last_column), index(0, -1),
        index(0, last_column + 1));
  MPI_Type_free(&column_type);
}

void Decomposition::to_rows(const std::vector<double>& field, double* rows) const {
  exchange(field.data(), Parts(block_, 1, slabs_), rows, Parts(slab(), 0, blocks_), communicator_);
}

void Decomposition::from_rows(const double* rows, std::vector<double>& field) const {
  exchange(rows, Parts(slab(), 0, blocks_), field.data(), Parts(block_, 1, slabs_), communicator_);
}

std::vector<double> Decomposition::gather(const std::vector<double>& field) const {
  const auto numbers = [this](int rows) { return rows * cells_; };
  std::vector<double> own(static_cast<std::size_t>(numbers(slab().rows)));
  to_rows(field, own.data());
  std::vector<int> counts, displacements;
  for (const Block& slab : slabs_) {
    counts.push_back(numbers(slab.rows));
    displacements.push_back(numbers(slab.row));
  }
  std::vector<double> all(rank_ == 0 ? static_cast<std::size_t>(numbers(cells_)) : 0);
  MPI_Gatherv(own.data(), numbers(slab().rows), MPI_DOUBLE, all.data(), counts.data(),
              displacements.data(), MPI_DOUBLE, 0, communicator_);
  return all;
}
