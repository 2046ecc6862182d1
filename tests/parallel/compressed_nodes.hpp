#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "lockstep/parallel/gradient_reducer.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "parallel/simulated_nodes.hpp"

namespace lockstep::testing {

inline const Shape matrix{48, 32}, kernels{8, 4, 3, 3}, vector{33};

inline std::vector<std::shared_ptr<const GradientCompression>> methods() {
  return {std::make_shared<TopK>(TopK::Options{.fraction = 0.1, .least_size = 50}),
          std::make_shared<PowerSgd>(PowerSgd::Options{.rank = 2, .seed = 5})};
}

// Powers of two, so that a node's mean is exact, and one rank without samples.
inline double weight_of(int rank, std::uint64_t step) {
  if (world().size() > 1 && rank == static_cast<int>(step % 3)) return 0;
  return std::ldexp(1, rank % 2);
}

inline Tensor gradient_of(int rank, std::uint64_t step, const Shape& shape) {
  return normal(100 * step + static_cast<std::uint64_t>(rank), shape);
}

/// Two gradients that are compressed, one in f64, and one that is not.
struct CompressedModel {
  Parameter weight{"weight", Tensor::zeros(matrix)};
  Parameter kernel{"kernel", Tensor::zeros(kernels, DType::f64)};
  Parameter bias{"bias", Tensor::zeros(vector)};

  std::vector<NamedParameter> all() const { return {weight, kernel, bias}; }

  void write(std::uint64_t step) {
    for (Parameter* parameter : {&weight, &kernel, &bias}) {
      const Tensor drawn = gradient_of(world().rank(), step, parameter->shape());
      const std::span<const float> from = drawn.span<float>();
      if (parameter->dtype() == DType::f32) {
        std::copy(from.begin(), from.end(), parameter->mutable_grad().data<float>());
      } else {
        std::copy(from.begin(), from.end(), parameter->mutable_grad().data<double>());
      }
    }
  }

  void reduce(GradientReducer& reducer, std::uint64_t step) {
    reducer.set_weight(weight_of(world().rank(), step));
    write(step);
    for (const Parameter& parameter : {bias, weight, kernel}) reducer.mark_ready(parameter);
    reducer.finish();
  }

  std::vector<Tensor> gradients() const {
    return {weight.grad().clone(), kernel.grad().clone(), bias.grad().clone()};
  }
};

inline ::testing::AssertionResult alike(const std::vector<Tensor>& a,
                                        const std::vector<Tensor>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!bit_equal(a[i], b[i])) return ::testing::AssertionFailure() << "gradient " << i;
  }
  return ::testing::AssertionSuccess();
}

/// Ranks as nodes of their own.
class CompressedNodes : public ::testing::Test {
 protected:
  static Communicator nodes(int ranks_a_node = 1) {
    return Communicator(world().handle(), {.node = world().rank() / ranks_a_node});
  }
};

}  // namespace lockstep::testing
