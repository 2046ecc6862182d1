#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "lockstep/autograd/losses.hpp"
#include "lockstep/autograd/operations.hpp"
#include "lockstep/nn/layers.hpp"
#include "lockstep/tensor/random.hpp"
#include "lockstep/tensor/tensor.hpp"
#include "lockstep/testing/mpi_test.hpp"

namespace lockstep::testing {

/// Rows of inputs and targets; none in a Batch().
struct Batch {
  Tensor x, y;

  std::int64_t size() const { return x.defined() ? x.shape()[0] : 0; }
  Batch slice(std::int64_t begin, std::int64_t end) const {
    return {x.rows(begin, end), y.rows(begin, end)};
  }
};

inline nn::Sequential make_model(std::uint64_t seed = 3) {
  const nn::LinearOptions options{.dtype = DType::f64};
  nn::Sequential model{nn::Linear(4, 8, options), nn::Tanh(), nn::Linear(8, 2, options)};
  model.initialize(seed);
  return model;
}

inline auto loss_of(nn::Module& model) {
  return [&model](const Batch& batch) { return mean_squared_error(model(batch.x), batch.y); };
}

inline Batch draw_batch(std::uint64_t key, std::int64_t rows) {
  Batch batch{Tensor::empty({rows, 4}, DType::f64), Tensor::empty({rows, 2}, DType::f64)};
  fill_uniform(batch.x, RandomKey(key), -1, 1);
  fill_uniform(batch.y, RandomKey(key + 1000), -1, 1);
  return batch;
}

/// How the rows of a batch are shared out: `rows[r]` for rank r.
inline Batch rows_of(const Batch& global, const std::vector<std::int64_t>& rows, int rank) {
  std::int64_t begin = 0;
  for (int r = 0; r < rank; ++r) begin += rows[static_cast<std::size_t>(r)];
  return global.slice(begin, begin + rows[static_cast<std::size_t>(rank)]);
}

/// Other numbers for each rank; with several ranks the last has none.
inline std::vector<std::int64_t> uneven_rows() {
  std::vector<std::int64_t> rows;
  for (int rank = 0; rank < world().size(); ++rank) rows.push_back(2 + 3 * rank);
  if (rows.size() > 1) rows.back() = 0;
  return rows;
}

inline std::int64_t total(const std::vector<std::int64_t>& rows) {
  std::int64_t sum = 0;
  for (const std::int64_t some : rows) sum += some;
  return sum;
}

/// Within 1e-12 of the largest number of the expected one, or of 0.01: some gradients are nothing but
/// rounding.
inline ::testing::AssertionResult close(const Tensor& found, const Tensor& expected) {
  double largest = 0.01, error = 0;
  for (std::int64_t i = 0; i < expected.size(); ++i) {
    largest = std::max(largest, std::abs(expected.data<double>()[i]));
    error = std::max(error, std::abs(found.data<double>()[i] - expected.data<double>()[i]));
  }
  if (error <= 1e-12 * largest) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "differs by " << error << " of " << largest;
}

inline void expect_close_gradients(const nn::Module& model, const nn::Module& expected,
                                   const std::string& where = "") {
  const auto found = model.named_parameters(), wanted = expected.named_parameters();
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    EXPECT_TRUE(close(found[i].parameter.grad(), wanted[i].parameter.grad()))
        << found[i].name << ' ' << where;
  }
}

inline void expect_close_states(const nn::Module& model, const nn::Module& expected) {
  const StateDict found = model.state_dict();
  for (const auto& [name, value] : expected.state_dict()) {
    const Tensor& tensor = found.at(name).as_tensor();
    if (tensor.dtype() == DType::f64) {
      EXPECT_TRUE(close(tensor, value.as_tensor())) << name;
    } else {
      EXPECT_TRUE(bit_equal(tensor, value.as_tensor())) << name;
    }
  }
}

inline void expect_equal_on_all_ranks(const nn::Module& model) {
  for (const auto& [name, value] : model.state_dict()) {
    if (!std::holds_alternative<Tensor>(value.variant())) continue;
    Tensor first = value.as_tensor().clone();
    world().broadcast_bytes(first.raw(), first.bytes());
    EXPECT_TRUE(bit_equal(first, value.as_tensor())) << name;
  }
}

}  // namespace lockstep::testing
