#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <lockstep/comm/communicator.hpp>
#include <lockstep/tensor/tensor.hpp>

/// Loss and accuracy over a number of samples.
struct Score {
  double loss = 0, correct = 0, samples = 0;

  void add(double mean_loss, const lockstep::Tensor& logits, const lockstep::Tensor& labels) {
    const std::int64_t rows = logits.shape()[0], classes = logits.shape()[1];
    const float* row = logits.data<float>();
    for (const std::int64_t label : labels.span<std::int64_t>()) {
      correct += std::max_element(row, row + classes) - row == label;
      row += classes;
    }
    loss += mean_loss * static_cast<double>(rows);
    samples += static_cast<double>(rows);
  }

  /// The score over the samples of all ranks; collective.
  Score over(const lockstep::Communicator& ranks) const {
    std::array<double, 3> sums{loss, correct, samples};
    ranks.all_reduce(std::span<double>(sums));
    return {sums[0], sums[1], sums[2]};
  }

  double mean_loss() const { return loss / samples; }
  double accuracy() const { return correct / samples; }
};
