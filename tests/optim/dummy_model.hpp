#pragma once

#include <cmath>
#include <cstdint>

#include "lockstep/nn/layers.hpp"
#include "lockstep/tensor/random.hpp"

namespace lockstep::testing {

/// The model of PyTorch's test of _NamedOptimizer. Parameter i starts from RandomKey(first_key +
/// i), as in golden/named_optimizer.py for a first_key of 0.
class DummyModel : public nn::Module {
 public:
  explicit DummyModel(std::uint64_t first_key = 0) {
    std::uint64_t key = first_key;
    std::int64_t fan_in = 1;
    for (NamedParameter& named : named_parameters()) {
      const Shape shape = named.parameter.shape();
      if (shape.rank() == 2) fan_in = shape[1];
      const double bound = 1 / std::sqrt(static_cast<double>(fan_in));
      fill_uniform(named.parameter.mutable_value(), RandomKey(key++), -bound, bound);
    }
  }

  void visit(nn::Visitor& visitor) override {
    visitor("net1", net1);
    visitor("net2", net2);
    visitor("net3", net3);
    visitor("net4", net4);
  }
  Variable forward(const Variable& x) override { return net4(net3(net2(net1(x)))); }

  nn::Sequential net1{nn::Linear(8, 16), nn::ReLU()};
  nn::Sequential net2{nn::Linear(16, 32), nn::ReLU()};
  nn::Linear net3{32, 64};
  nn::Sequential net4{nn::ReLU(), nn::Linear(64, 8)};
};

/// What `rank` draws in an iteration, counted from 1.
inline Tensor dummy_batch(int iteration, int rank) {
  Tensor batch = Tensor::empty({5, 8});
  fill_uniform(batch, RandomKey(static_cast<std::uint64_t>(1000 * iteration + rank)), 0, 1);
  return batch;
}

}  // namespace lockstep::testing
