#pragma once

#include <cstdint>

// Numeric kernels that normalise rows, for T = float and double. What becomes of a row does not depend on
// the others.
namespace lockstep::kernels {

/// Rows of `parts` times `run` numbers. A part has one number of a weight: part i of row r that of index
/// (r % cycle) · parts + i.
struct RowParts {
  std::int64_t rows, parts, run, cycle;

  std::int64_t length() const { return parts * run; }
};

/// mean[row], and factor[row] = 1 / √(variance + eps), in two passes.
template <class T>
void row_moments(const RowParts& shape, const T* x, double eps, double* mean, double* factor);

/// y = (x - mean) · factor · weight + bias; the last two may be null.
template <class T>
void normalize_rows(const RowParts& shape, const T* x, const double* mean, const double* factor,
                    const T* weight, const T* bias, T* y);

/// With x̂ = (x - mean) · factor, and g = dy · weight: dx (+)= factor · (g - mean of g - x̂ · mean of g · x̂)
/// over a row, where dx is not null; products += Σ dy · x̂ and sums += Σ dy of each number of the weight, where
/// these are not null.
template <class T>
void normalize_rows_backward(const RowParts& shape, const T* x, const double* mean,
                             const double* factor, const T* weight, const T* dy, T* dx,
                             bool accumulate, double* products, double* sums);

}  // namespace lockstep::kernels
