#include "lockstep/data/dataset.hpp"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/data/idx.hpp"
#include "tensor/dispatch.hpp"

namespace lockstep::data {
namespace {

Shape with_rows(const Shape& shape, std::size_t rows) {
  std::vector<std::int64_t> extents(shape.begin(), shape.end());
  extents[0] = static_cast<std::int64_t>(rows);
  return Shape(extents);
}

std::size_t row_size(const Tensor& tensor) {
  return static_cast<std::size_t>(tensor.size() / tensor.shape()[0]);
}

Tensor gather(const Tensor& source, std::span<const std::int64_t> indices) {
  Tensor result = Tensor::empty(with_rows(source.shape(), indices.size()), source.dtype());
  if (result.size() == 0) return result;
  const std::size_t row_bytes = row_size(source) * item_size(source.dtype());
  const auto* from = static_cast<const std::byte*>(source.raw());
  auto* to = static_cast<std::byte*>(result.raw());
  for (const std::int64_t index : indices) {
    std::memcpy(to, from + static_cast<std::size_t>(index) * row_bytes, row_bytes);
    to += row_bytes;
  }
  return result;
}

template <class T>
Tensor gather_scaled(const Tensor& source, std::span<const std::int64_t> indices,
                     const TensorDatasetOptions& options) {
  Tensor result = Tensor::empty(with_rows(source.shape(), indices.size()), options.dtype);
  if (result.size() == 0) return result;
  std::array<T, 256> scaled;
  for (std::size_t value = 0; value < scaled.size(); ++value) {
    const double unit = static_cast<double>(value) / 255.0;
    scaled[value] = static_cast<T>((unit - options.mean) / options.stddev);
  }
  const std::size_t row = row_size(source);
  T* to = result.data<T>();
  for (const std::int64_t index : indices) {
    const std::uint8_t* from = source.data<std::uint8_t>() + static_cast<std::size_t>(index) * row;
    for (std::size_t i = 0; i < row; ++i) *to++ = scaled[from[i]];
  }
  return result;
}

std::int64_t rows_of(const Tensor& tensor, const char* what) {
  if (!tensor.defined() || tensor.shape().rank() == 0) {
    throw ShapeError(
        fmt::format("the {} of a dataset need a first axis, along the samples; found {}", what,
                    tensor.defined() ? "a scalar" : "an undefined tensor"));
  }
  return tensor.shape()[0];
}

}  // namespace

std::int64_t Batch::size() const {
  return inputs.defined() && inputs.shape().rank() > 0 ? inputs.shape()[0] : 0;
}

Batch Batch::slice(std::int64_t begin, std::int64_t end) const {
  return {inputs.rows(begin, end), targets.rows(begin, end)};
}

TensorDataset::TensorDataset(Tensor inputs, Tensor targets, const TensorDatasetOptions& options)
    : inputs_(std::move(inputs)), targets_(std::move(targets)), options_(options) {
  if (rows_of(inputs_, "inputs") != rows_of(targets_, "targets")) {
    throw ShapeError(fmt::format("inputs and targets differ in their first extent: {} and {}",
                                 to_string(inputs_.shape()), to_string(targets_.shape())));
  }
  if (!is_floating(options_.dtype)) {
    throw OptionError(fmt::format("expected dtype f32 or f64 for u8 inputs to become, found {}",
                                  to_string(options_.dtype)));
  }
  if (!std::isfinite(options_.mean) || !std::isfinite(options_.stddev) || options_.stddev <= 0) {
    throw OptionError(fmt::format("expected a finite mean and a positive stddev, found {} and {}",
                                  options_.mean, options_.stddev));
  }
}

Batch TensorDataset::batch(std::span<const std::int64_t> indices) const {
  for (const std::int64_t index : indices) {
    if (index < 0 || index >= size()) {
      throw DataError(fmt::format("sample {} is outside a dataset of {} samples", index, size()));
    }
  }
  Batch result{.inputs = {}, .targets = gather(targets_, indices)};
  if (inputs_.dtype() == DType::u8) {
    dispatch_floating(options_.dtype, [&]<class T>() {
      result.inputs = gather_scaled<T>(inputs_, indices, options_);
    });
  } else {
    result.inputs = gather(inputs_, indices);
  }
  return result;
}

TensorDataset read_idx_dataset(const std::string& images, const std::string& labels,
                               const TensorDatasetOptions& options) {
  const Tensor inputs = read_idx(images);
  Tensor targets = read_idx(labels);
  if (inputs.shape().rank() == 0 || targets.shape().rank() == 0 ||
      inputs.shape()[0] != targets.shape()[0]) {
    throw DataError(
        fmt::format("expected as many labels as images, found shape {} in {} and {} in {}",
                    to_string(inputs.shape()), images, to_string(targets.shape()), labels));
  }
  if (!is_floating(targets.dtype())) targets = targets.to(DType::i64);
  return TensorDataset(inputs, targets, options);
}

}  // namespace lockstep::data
