#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lockstep/parallel/compression.hpp"
#include "lockstep/tensor/random.hpp"
#include "lockstep/tensor/tensor.hpp"

namespace lockstep::testing {

inline Tensor normal(std::uint64_t seed, const Shape& shape) {
  Tensor tensor = Tensor::empty(shape);
  fill_normal(tensor, RandomKey(seed), 0, 1);
  return tensor;
}

// a += factor · b, in double precision.
inline void add(std::vector<double>& a, double factor, const Tensor& b) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    a[i] += factor * static_cast<double>(b.span<float>()[i]);
  }
}

// The nodes of a job, in one process: each has its compressor for one parameter, and what is left of
// its gradients.
class SimulatedNodes {
 public:
  SimulatedNodes(const GradientCompression& method, const Shape& shape, std::size_t nodes,
                 const std::string& name = "weight") {
    for (std::size_t node = 0; node < nodes; ++node) {
      compressors.push_back(method.compressor(name, shape));
      left.push_back(Tensor::zeros(shape));
    }
    for (const std::size_t bytes : compressors[0]->message_bytes()) {
      std::vector<Tensor>& of_round = messages_.emplace_back();
      const auto size = static_cast<std::int64_t>(bytes);
      for (std::size_t node = 0; node < nodes; ++node) {
        of_round.push_back(Tensor::empty({size}, DType::u8));
      }
    }
    means_.assign(nodes, Tensor());
    for (Tensor& mean : means_) mean = Tensor::empty(shape);
  }

  // The mean that all nodes come to. A node with a share of 0 has no samples.
  Tensor reduce(const std::vector<Tensor>& gradients, const std::vector<double>& shares) {
    for (std::size_t node = 0; node < left.size(); ++node) {
      if (shares[node] == 0) continue;
      for (std::int64_t i = 0; i < left[node].size(); ++i) {
        left[node].data<float>()[i] += gradients[node].data<float>()[i];
      }
    }
    exchange(shares, messages_.size());
    for (auto& compressor : compressors) compressor->end(true);
    for (const Tensor& mean : means_) EXPECT_TRUE(bit_equal(mean, means_[0]));
    for (const auto& compressor : compressors) {
      EXPECT_TRUE(bit_equal(compressor->state_dict(), compressors[0]->state_dict()));
    }
    return means_[0];
  }

  // A reduction of these gradients that is given up after some of its rounds.
  void give_up(const std::vector<Tensor>& gradients, const std::vector<double>& shares,
               std::size_t rounds) {
    std::vector<Tensor> kept = left;
    for (std::size_t node = 0; node < left.size(); ++node) left[node] = gradients[node].clone();
    exchange(shares, rounds);
    for (auto& compressor : compressors) compressor->end(false);
    left = std::move(kept);
  }

  std::size_t rounds() const { return messages_.size(); }

  std::vector<std::unique_ptr<TensorCompressor>> compressors;
  std::vector<Tensor> left;

 private:
  void exchange(const std::vector<double>& shares, std::size_t rounds) {
    for (std::size_t round = 0; round < rounds; ++round) {
      read_.clear();
      for (std::size_t node = 0; node < left.size(); ++node) {
        if (shares[node] == 0) continue;
        Tensor& message = messages_[round][node];
        message.fill(0);
        const std::span<std::uint8_t> bytes = message.span<std::uint8_t>();
        compressors[node]->encode(round, left[node].span<float>(), std::as_writable_bytes(bytes));
        read_.push_back({std::as_bytes(bytes), shares[node]});
      }
      for (std::size_t node = 0; node < left.size(); ++node) {
        compressors[node]->decode(round, read_, means_[node].span<float>());
      }
    }
  }

  std::vector<std::vector<Tensor>> messages_;  // of each round, those of the nodes
  std::vector<NodeMessage> read_;
  std::vector<Tensor> means_;
};

}  // namespace lockstep::testing
