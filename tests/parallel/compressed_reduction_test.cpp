#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "comm/placements.hpp"
#include "lockstep/autograd/operations.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/optim/clipping.hpp"
#include "lockstep/parallel/gradient_reducer.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "parallel/compressed_nodes.hpp"
#include "tensor/dispatch.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace compressed_reduction_test {

using testing::alike;
using testing::Arrangement;
using testing::arrangements;
using testing::CompressedModel;
using testing::CompressedNodes;
using testing::gradient_of;
using testing::kernels;
using testing::matrix;
using testing::methods;
using testing::SimulatedNodes;
using testing::vector;
using testing::weight_of;
using testing::world;

std::vector<std::vector<int>> nodes_of(const Arrangement& arrangement) {
  if (arrangement.options.share_memory) return arrangement.nodes;
  // Ranks that share no memory are nodes by themselves.
  std::vector<std::vector<int>> nodes;
  for (int rank = 0; rank < world().size(); ++rank) nodes.push_back({rank});
  return nodes;
}

// What a node's ranks have together: the mean over its samples, and their share in all.
std::pair<Tensor, double> mean_of(const std::vector<int>& ranks, std::uint64_t step,
                                  const Shape& shape) {
  double own = 0, all = 0;
  for (int rank = 0; rank < world().size(); ++rank) all += weight_of(rank, step);
  std::vector<double> sum(static_cast<std::size_t>(shape.size()));
  for (const int rank : ranks) {
    testing::add(sum, weight_of(rank, step), gradient_of(rank, step, shape));
    own += weight_of(rank, step);
  }
  Tensor mean = Tensor::zeros(shape);
  for (std::size_t i = 0; own > 0 && i < sum.size(); ++i) {
    mean.data<float>()[i] = static_cast<float>(sum[i] / own);
  }
  return {mean, own / all};
}

::testing::AssertionResult close(const Tensor& found, const Tensor& expected) {
  for (std::int64_t i = 0; i < expected.size(); ++i) {
    const double own = found.dtype() == DType::f32 ? static_cast<double>(found.data<float>()[i])
                                                   : found.data<double>()[i];
    const double other = static_cast<double>(expected.data<float>()[i]);
    if (std::abs(own - other) <= 2e-5 * (1 + std::abs(other))) continue;
    return ::testing::AssertionFailure() << "number " << i << " is " << own << ", not " << other;
  }
  return ::testing::AssertionSuccess();
}

// The compressors alone, in one process, are the reference.
TEST(CompressedReduction, gives_all_ranks_what_their_nodes_compress) {
  for (const Arrangement& arrangement : arrangements()) {
    const std::vector<std::vector<int>> nodes = nodes_of(arrangement);
    for (const auto& method : methods()) {
      SCOPED_TRACE(arrangement.name + ", " + method->describe());
      const Communicator ranks(world().handle(), arrangement.options);
      CompressedModel model;
      GradientReducer reducer(model.all(), ranks, {.bucket_bytes = 1, .compression = method});
      SimulatedNodes weight(*method, matrix, nodes.size(), "weight");
      SimulatedNodes kernel(*method, kernels, nodes.size(), "kernel");
      for (std::uint64_t step = 0; step < 6; ++step) {
        model.reduce(reducer, step);
        std::vector<int> everyone;
        for (int rank = 0; rank < world().size(); ++rank) everyone.push_back(rank);
        const auto expected = [&](SimulatedNodes& simulated, const Shape& shape) {
          if (nodes.size() == 1) return mean_of(everyone, step, shape).first;
          std::vector<Tensor> means;
          std::vector<double> shares;
          for (const std::vector<int>& node : nodes) {
            const auto [mean, share] = mean_of(node, step, shape);
            means.push_back(mean);
            shares.push_back(share);
          }
          return simulated.reduce(means, shares);
        };
        ASSERT_TRUE(close(model.weight.grad(), expected(weight, matrix))) << "step " << step;
        ASSERT_TRUE(close(model.kernel.grad(), expected(kernel, kernels))) << "step " << step;
        ASSERT_TRUE(close(model.bias.grad(), mean_of(everyone, step, vector).first));
        for (Tensor& gradient : model.gradients()) {
          Tensor root = gradient.clone();
          world().broadcast_bytes(root.raw(), root.bytes());
          ASSERT_TRUE(bit_equal(root, gradient));
        }
      }
    }
  }
}

TEST_F(CompressedNodes, sums_are_scaled_means) {
  for (const auto& method : methods()) {
    CompressedModel mean, sum;
    GradientReducer means(mean.all(), nodes(), {.compression = method});
    GradientReducer sums(
        sum.all(), nodes(),
        {.reduction = GradientReduction::sum, .predivide = 4, .compression = method});
    for (std::uint64_t step = 0; step < 3; ++step) {
      double weights = 0;
      for (int rank = 0; rank < world().size(); ++rank) weights += weight_of(rank, step);
      mean.reduce(means, step);
      sum.reduce(sums, step);
      for (std::int64_t i = 0; i < matrix.size(); ++i) {
        const double expected = weights * static_cast<double>(mean.weight.grad().data<float>()[i]);
        ASSERT_NEAR(sum.weight.grad().data<float>()[i], expected, 1e-4 * (1 + std::abs(expected)));
      }
    }
  }
}

// They are measured while gradients are reduced, from the third reduction on.
TEST_F(CompressedNodes, norms_are_of_what_all_nodes_get) {
  for (const auto& method : methods()) {
    for (const WireFormat wire : {WireFormat::full, WireFormat::fp16}) {
      CompressedModel model;
      GradientReducer reducer(model.all(), nodes(), {.wire = wire, .compression = method});
      for (std::uint64_t step = 0; step < 5; ++step) {
        model.reduce(reducer, step);
        const double found = optim::clip_gradients(model.all(), {}).global_norm;
        double squares = 0;
        for (const Tensor& gradient : model.gradients()) {
          dispatch_floating(gradient.dtype(), [&]<class T>() {
            for (const T x : gradient.span<T>()) squares += static_cast<double>(x) * x;
          });
        }
        ASSERT_NEAR(found, std::sqrt(squares), 1e-12 * found) << "step " << step;
      }
    }
  }
}

TEST_F(CompressedNodes, a_reduction_that_fails_leaves_nothing) {
  for (const auto& method : methods()) {
    CompressedModel plain, tried;
    GradientReducer reducer(plain.all(), nodes(), {.compression = method});
    GradientReducer other(tried.all(), nodes(), {.compression = method});
    for (std::uint64_t step = 0; step < 4; ++step) {
      plain.reduce(reducer, step);
      // Weights that are refused, and then a backward that fails on one rank.
      tried.write(step + 50);
      other.set_weight(world().rank() == 0 ? -1 : 1);
      for (const Parameter& parameter : {tried.bias, tried.weight, tried.kernel}) {
        other.mark_ready(parameter);
      }
      EXPECT_THROW(other.finish(), OptionError);
      other.discard();
      other.set_weight(1);
      EXPECT_THROW(
          {
            Variable loss = sum(tried.weight) + sum(tried.bias);
            if (world().rank() == world().size() - 1) {
              tried.weight.register_hook([armed = std::make_shared<bool>(true)](const Parameter&) {
                if (std::exchange(*armed, false)) throw DataError("no data");
              });
            }
            loss.backward();
          },
          DataError);
      for (Parameter* parameter : {&tried.weight, &tried.kernel, &tried.bias}) {
        parameter->zero_grad();
      }
      tried.reduce(other, step);
      ASSERT_TRUE(alike(plain.gradients(), tried.gradients())) << "step " << step;
    }
  }
}

TEST_F(CompressedNodes, what_is_not_finite_spoils_one_reduction_only) {
  if (world().size() == 1) return;
  for (const auto& method : methods()) {
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      CompressedModel plain, spoilt;
      GradientReducer reducer(plain.all(), nodes(), {.compression = method});
      GradientReducer other(spoilt.all(), nodes(), {.compression = method});
      for (std::uint64_t step = 0; step < 4; ++step) {
        spoilt.write(step + 50);
        if (world().rank() == 1) spoilt.weight.mutable_grad().data<float>()[7] = bad;
        other.set_weight(1);
        other.mark_ready(spoilt.weight);
        other.finish();
        for (const float number : spoilt.weight.grad().span<float>()) {
          ASSERT_TRUE(std::isnan(number));
        }
        plain.reduce(reducer, step);
        spoilt.reduce(other, step);
        ASSERT_TRUE(alike(plain.gradients(), spoilt.gradients())) << "step " << step;
      }
    }
  }
}

TEST_F(CompressedNodes, an_overflow_spoils_one_reduction_only) {
  if (world().size() == 1) return;
  CompressedModel plain, spoilt;
  GradientReducer reducer(plain.all(), nodes(), {.compression = methods()[1]});
  GradientReducer other(spoilt.all(), nodes(), {.compression = methods()[1]});
  for (std::uint64_t step = 0; step < 3; ++step) {
    plain.reduce(reducer, step);
    spoilt.reduce(other, step);
    ASSERT_TRUE(alike(plain.gradients(), spoilt.gradients())) << "step " << step;
    spoilt.weight.mutable_grad().fill(3e38);
    other.set_weight(1);
    other.mark_ready(spoilt.weight);
    other.finish();
    for (const float number : spoilt.weight.grad().span<float>()) ASSERT_TRUE(std::isnan(number));
  }
}

// A sum of nothing is zero, and no compressor hears of it.
TEST_F(CompressedNodes, a_sum_without_samples_leaves_what_there_was) {
  for (const auto& method : methods()) {
    CompressedModel plain, empty;
    const GradientReducerOptions options{.reduction = GradientReduction::sum,
                                         .compression = method};
    GradientReducer reducer(plain.all(), nodes(), options), other(empty.all(), nodes(), options);
    for (std::uint64_t step = 0; step < 3; ++step) {
      plain.reduce(reducer, step);
      empty.reduce(other, step);
      ASSERT_TRUE(alike(plain.gradients(), empty.gradients())) << "step " << step;
      other.set_weight(0);
      other.mark_ready(empty.weight);
      other.finish();
      for (const float number : empty.weight.grad().span<float>()) ASSERT_EQ(number, 0);
    }
  }
}

TEST_F(CompressedNodes, what_no_rank_has_reached_keeps_what_is_left) {
  for (const auto& method : methods()) {
    CompressedModel plain, sparse;
    GradientReducer reducer(plain.all(), nodes(), {.compression = method});
    GradientReducer other(sparse.all(), nodes(), {.compression = method});
    plain.reduce(reducer, 0);
    sparse.reduce(other, 0);
    other.set_weight(1);
    sum(sparse.bias).backward();
    plain.reduce(reducer, 1);
    sparse.reduce(other, 1);
    EXPECT_TRUE(bit_equal(plain.weight.grad(), sparse.weight.grad()));
    EXPECT_TRUE(bit_equal(plain.kernel.grad(), sparse.kernel.grad()));
  }
}

TEST_F(CompressedNodes, the_first_reductions_are_not_compressed) {
  const std::vector<std::shared_ptr<const GradientCompression>> late{
      std::make_shared<TopK>(TopK::Options{.fraction = 0.1, .first_reduction = 2}),
      std::make_shared<PowerSgd>(PowerSgd::Options{.rank = 2, .first_reduction = 2})};
  for (const auto& method : late) {
    CompressedModel plain, compressed;
    GradientReducer reducer(plain.all(), nodes());
    GradientReducer other(compressed.all(), nodes(), {.compression = method});
    for (std::uint64_t step = 0; step < 3; ++step) {
      plain.reduce(reducer, step);
      compressed.reduce(other, step);
      EXPECT_EQ(bool(alike(plain.gradients(), compressed.gradients())),
                step < 2 || world().size() == 1);
    }
  }
}
}  // namespace compressed_reduction_test
}  // namespace lockstep
