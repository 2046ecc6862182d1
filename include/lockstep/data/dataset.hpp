#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "lockstep/tensor/tensor.hpp"

#pragma GCC visibility push(default)

namespace lockstep::data {

/// Samples and what is to be learned of them: row i of `inputs` belongs to row i of `targets`.
struct Batch {
  Tensor inputs;
  Tensor targets;

  /// Number of samples; 0 for a batch without tensors.
  std::int64_t size() const;
  /// Samples begin ≤ i < end, in the same memory. ShapeError where they are not all there.
  Batch slice(std::int64_t begin, std::int64_t end) const;
};

/// Samples that can be had by index.
class Dataset {
 public:
  virtual ~Dataset() = default;

  virtual std::int64_t size() const = 0;
  /// The samples with these indices, in their order, in memory of their own. DataError for an index
  /// outside [0, size()); no indices give an empty batch, with extents as those of any other.
  virtual Batch batch(std::span<const std::int64_t> indices) const = 0;
};

/// What becomes of u8 inputs, such as pixels: (value / 255 - mean) / stddev, in `dtype`.
struct TensorDatasetOptions {
  double mean = 0;
  double stddev = 1;
  DType dtype = DType::f32;
};

/// A dataset in memory. u8 inputs are stored as they are and converted batch by batch, as the
/// options say; targets, and inputs of another dtype, come out as they went in.
class TensorDataset : public Dataset {
 public:
  /// Shares the memory of the tensors. ShapeError unless both have the same first extent;
  /// OptionError unless `mean` is finite, `stddev` is finite and positive, and `dtype` is f32 or
  /// f64.
  TensorDataset(Tensor inputs, Tensor targets, const TensorDatasetOptions& options = {});

  std::int64_t size() const override { return inputs_.shape()[0]; }
  Batch batch(std::span<const std::int64_t> indices) const override;

 private:
  Tensor inputs_;
  Tensor targets_;
  TensorDatasetOptions options_;
};

/// The images and labels of two IDX files (see read_idx), with integer labels converted to i64.
/// DataError, which names both files, where there are not as many labels as images.
TensorDataset read_idx_dataset(const std::string& images, const std::string& labels,
                               const TensorDatasetOptions& options = {});

}  // namespace lockstep::data

#pragma GCC visibility pop
