#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "lockstep/autograd/operations.hpp"
#include "lockstep/autograd/structure.hpp"

namespace lockstep::testing {

using Function = std::function<Variable(const std::vector<Variable>&)>;

/// Numbers drawn from [low, high).
inline Tensor uniform(const Shape& shape, std::uint64_t seed, double low = -1, double high = 1,
                      DType dtype = DType::f64) {
  Tensor tensor = Tensor::empty(shape, DType::f64);
  fill_uniform(tensor, RandomKey(seed), low, high);
  return tensor.to(dtype);
}

/// One number of any result, in which each element has a weight of its own.
inline Variable weighted_sum(const Variable& result) {
  return sum(result * Variable(uniform(result.shape(), 77, 0.5, 1.5, result.dtype())));
}

inline std::vector<Variable> leaves(const std::vector<Tensor>& inputs, DType dtype) {
  std::vector<Variable> variables;
  for (const Tensor& input : inputs) variables.emplace_back(input.to(dtype), true);
  return variables;
}

inline std::vector<Tensor> gradients(const std::vector<Variable>& variables) {
  std::vector<Tensor> found;
  for (const Variable& variable : variables) found.push_back(variable.grad().clone());
  return found;
}

inline void expect_near(const Tensor& found, const Tensor& expected, double tolerance,
                        const char* what) {
  ASSERT_EQ(found.shape(), expected.shape()) << what;
  const Tensor a = found.to(DType::f64), b = expected.to(DType::f64);
  double scale = 1;
  for (const double value : b.span<double>()) scale = std::max(scale, std::abs(value));
  for (std::int64_t i = 0; i < a.size(); ++i) {
    // Not EXPECT_NEAR, which takes two NaN for different.
    const double x = a.data<double>()[i], y = b.data<double>()[i];
    EXPECT_LE(std::abs(x - y), tolerance * scale)
        << what << ", element " << i << ": found " << x << ", expected " << y;
  }
}

/// Compares the derivatives of a function of f64 tensors with central differences, those of f32
/// with those of f64, and those where gradients are added to others with multiples of the plain
/// ones.
inline void check_gradients(const Function& function, const std::vector<Tensor>& inputs) {
  const std::vector<Variable> plain = leaves(inputs, DType::f64);
  weighted_sum(function(plain)).backward();
  const std::vector<Tensor> derivatives = gradients(plain);

  for (std::size_t which = 0; which < inputs.size(); ++which) {
    Tensor numeric = Tensor::empty(inputs[which].shape(), DType::f64);
    for (std::int64_t i = 0; i < numeric.size(); ++i) {
      const auto value_at = [&](double step) {
        std::vector<Variable> moved;
        for (const Tensor& input : inputs) moved.emplace_back(input.clone());
        Tensor value = moved[which].value();
        value.data<double>()[i] += step;
        return weighted_sum(function(moved)).value().item();
      };
      constexpr double step = 1e-5;
      numeric.data<double>()[i] = (value_at(step) - value_at(-step)) / (2 * step);
    }
    expect_near(derivatives[which], numeric, 1e-8, "against differences");
  }

  const std::vector<Variable> single = leaves(inputs, DType::f32);
  weighted_sum(function(single)).backward();
  const std::vector<Tensor> rounded = gradients(single);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_EQ(rounded[i].dtype(), DType::f32);
    expect_near(rounded[i], derivatives[i], 2e-6, "f32 against f64");
  }

  // Each leaf gets three contributions, two of them by way of an intermediate result.
  const std::vector<Variable> shared = leaves(inputs, DType::f64);
  std::vector<Variable> copies;
  for (const Variable& leaf : shared) copies.push_back(reshape(leaf, leaf.shape()));
  (weighted_sum(function(copies)) + weighted_sum(function(shared)) + weighted_sum(function(copies)))
      .backward();
  const std::vector<Tensor> threefold = gradients(shared);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    expect_near((Variable(threefold[i]) / 3.0).value(), derivatives[i], 1e-14, "used three times");
  }
}

}  // namespace lockstep::testing
