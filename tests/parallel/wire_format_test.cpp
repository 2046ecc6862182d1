#include <cmath>
#include <cstdint>
#include <vector>

#include "comm/placements.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/nn/layers.hpp"
#include "lockstep/parallel/data_parallel.hpp"
#include "lockstep/parallel/gradient_reducer.hpp"
#include "lockstep/tensor/random.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace wire_format_test {

using testing::Arrangement;
using testing::arrangements;
using testing::throws;
using testing::world;

// Enough for several messages a rank.
constexpr std::int64_t long_size = 40'000;

double drawn(int rank, std::int64_t i) {
  return RandomKey(7)
             .fold(static_cast<std::uint64_t>(rank))
             .uniform(static_cast<std::uint64_t>(i)) -
         0.5;
}

// Half a unit in the last place.
double relative_error(WireFormat format) {
  return format == WireFormat::fp16 ? std::ldexp(1, -11) : std::ldexp(1, -8);
}

double weight_of(int rank) { return rank + 1.0; }

// What the nodes come to without any rounding, and how much rounding may change it: each node's mean,
// and the mean over nodes once more where there are several that send it round.
struct Expected {
  double value = 0, error = 0;
};

Expected expect(const Arrangement& arrangement, WireFormat format, std::int64_t i) {
  double sum = 0, weights = 0, magnitude = 0;
  for (const std::vector<int>& ranks : arrangement.nodes) {
    double of_node = 0;
    for (const int rank : ranks) {
      of_node += weight_of(rank) * drawn(rank, i);
      weights += weight_of(rank);
    }
    sum += of_node;
    magnitude += std::abs(of_node);
  }
  const double rounding = relative_error(format) * (magnitude + std::abs(sum)) / weights;
  return {sum / weights, rounding * 1.01 + 1e-7};
}

template <class T>
void fill(Parameter& parameter) {
  for (std::int64_t i = 0; i < parameter.size(); ++i) {
    parameter.mutable_grad().data<T>()[i] = static_cast<T>(drawn(world().rank(), i));
  }
}

std::vector<double> numbers(const Tensor& tensor) {
  std::vector<double> all(static_cast<std::size_t>(tensor.size()));
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i] = tensor.dtype() == DType::f32 ? static_cast<double>(tensor.data<float>()[i])
                                          : tensor.data<double>()[i];
  }
  return all;
}

void expect_alike(const Communicator& ranks, const std::vector<double>& own) {
  std::vector<double> root = own;
  ranks.broadcast(std::span(root));
  EXPECT_EQ(root, own);
}

TEST(WireFormat, gradients_travel_in_half_precision_between_nodes_alone) {
  for (const Arrangement& arrangement : arrangements()) {
    SCOPED_TRACE(arrangement.name);
    const Communicator ranks(world().handle(), arrangement.options);
    // Ranks that share no memory are nodes by themselves.
    Arrangement nodes = arrangement;
    if (!arrangement.options.share_memory) {
      nodes.nodes.clear();
      for (int rank = 0; rank < world().size(); ++rank) nodes.nodes.push_back({rank});
    }
    for (const WireFormat format : {WireFormat::fp16, WireFormat::bf16}) {
      Parameter small("small", Tensor::zeros({3}));
      Parameter large("large", Tensor::zeros({long_size}));
      Parameter wide("wide", Tensor::zeros({1000}, DType::f64));
      GradientReducer reducer({small, large, wide}, ranks, {.bucket_bytes = 5000, .wire = format});
      for (int repetition = 0; repetition < 2; ++repetition) {
        fill<float>(small);
        fill<float>(large);
        fill<double>(wide);
        reducer.set_weight(weight_of(world().rank()));
        for (const Parameter& parameter : {small, large, wide}) reducer.mark_ready(parameter);
        reducer.finish();
        for (const Parameter& parameter : {small, large, wide}) {
          const std::vector<double> found = numbers(parameter.grad());
          expect_alike(world(), found);
          std::size_t wrong = 0, inexact = 0;
          for (std::size_t i = 0; i < found.size(); ++i) {
            const auto [value, error] = expect(nodes, format, static_cast<std::int64_t>(i));
            const double difference = std::abs(found[i] - value);
            if (!(difference <= error)) ++wrong;
            if (difference > 1e-6) ++inexact;
          }
          EXPECT_EQ(wrong, 0U) << parameter.name();
          if (nodes.nodes.size() == 1) {
            EXPECT_EQ(inexact, 0U) << parameter.name();
          } else if (found.size() > 3) {
            EXPECT_GT(inexact, found.size() / 4) << parameter.name();
          }
        }
      }
    }
  }
}

TEST(WireFormat, sums_are_made_of_means_that_do_not_overflow) {
  const Communicator ranks(world().handle(), {.node = world().rank()});
  Parameter parameter("p", Tensor::zeros({long_size}));
  GradientReducer reducer({parameter}, ranks,
                          {.reduction = GradientReduction::sum, .wire = WireFormat::fp16});
  // 60 · 1000 · (1 + 2 + …) is far above 65504, and 60 is a number of binary16.
  parameter.mutable_grad().fill(60);
  reducer.set_weight(1000.0 * (world().rank() + 1));
  reducer.mark_ready(parameter);
  reducer.finish();
  const double total = 500.0 * world().size() * (world().size() + 1);
  for (const double number : numbers(parameter.grad())) {
    ASSERT_NEAR(number, 60 * total, 60 * total * 2e-7);
  }
}

TEST(WireFormat, what_is_too_large_becomes_infinite_on_all_ranks) {
  const Communicator ranks(world().handle(), {.node = world().rank()});
  Parameter parameter("p", Tensor::zeros({4}));
  GradientReducer reducer({parameter}, ranks, {.wire = WireFormat::fp16});
  parameter.mutable_grad().fill(world().rank() == 0 ? 70000 : 1);
  reducer.mark_ready(parameter);
  reducer.finish();
  for (const double number : numbers(parameter.grad())) {
    EXPECT_EQ(std::isinf(number), world().size() > 1);
  }
}

TEST(WireFormat, ranks_without_samples_count_nothing) {
  const Communicator ranks(world().handle(), {.node = world().rank()});
  Parameter parameter("p", Tensor::zeros({100}));
  GradientReducer reducer({parameter}, ranks, {.wire = WireFormat::bf16});
  const bool has_samples = world().rank() == 0;
  parameter.mutable_grad().fill(has_samples ? 0.375 : 1e30);
  reducer.set_weight(has_samples ? 3 : 0);
  reducer.mark_ready(parameter);
  reducer.finish();
  EXPECT_EQ(numbers(parameter.grad()), std::vector<double>(100, 0.375));
}

TEST(WireFormat, must_be_alike_and_not_with_logical_replicas) {
  Parameter parameter("p", Tensor::zeros({4}));
  if (world().size() > 1) {
    const WireFormat own = world().rank() == 1 ? WireFormat::bf16 : WireFormat::fp16;
    EXPECT_TRUE(throws<OptionError>([&] { GradientReducer({parameter}, world(), {.wire = own}); },
                                    "wire = fp16", "as on rank 0", "wire = bf16", "(rank 1)"));
  }
  EXPECT_TRUE(throws<OptionError>(
      [&] { GradientReducer({parameter}, world(), {.wire = static_cast<WireFormat>(3)}); },
      "unknown wire format 3"));
  nn::Linear model(2, 2);
  EXPECT_TRUE(throws<OptionError>(
      [&] { DataParallel(model, world(), {.wire = WireFormat::fp16, .logical_replicas = 4}); },
      "logical replicas", "wire"));
}
}  // namespace wire_format_test
}  // namespace lockstep
