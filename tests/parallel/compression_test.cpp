// What holds for all methods of compression, and for one of a user's own.

#include "lockstep/parallel/compression.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lockstep/tensor/memory_pool.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "parallel/simulated_nodes.hpp"
#include "tensor/gemm.hpp"
#include "testing/allocation_counter.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace compression_test {

using testing::add;
using testing::allocated_bytes;
using testing::allocations_left;
using testing::normal;
using testing::SimulatedNodes;

// Sends the signs of all numbers, and their mean magnitude. Karimireddy, Rebjock, Stich, Jaggi, "Error
// feedback fixes SignSGD and other gradient compression schemes", arXiv:1901.09847.
class ScaledSigns : public GradientCompression {
  class Compressor : public TensorCompressor {
   public:
    explicit Compressor(std::int64_t size) : size_(static_cast<std::size_t>(size)) {}

    std::vector<std::size_t> message_bytes() const override {
      return {sizeof(float) + (size_ + 7) / 8};
    }
    void encode(std::size_t, std::span<float> gradient, std::span<std::byte> message) override {
      float scale = 0;
      for (const float x : gradient) scale += std::abs(x) / static_cast<float>(size_);
      std::memcpy(message.data(), &scale, sizeof(scale));
      for (std::size_t i = 0; i < size_; ++i) {
        const bool negative = std::signbit(gradient[i]);
        if (negative) message[sizeof(float) + i / 8] |= std::byte{1} << (i % 8);
        gradient[i] -= negative ? -scale : scale;
      }
    }
    void decode(std::size_t, std::span<const NodeMessage> messages,
                std::span<float> mean) override {
      std::fill(mean.begin(), mean.end(), 0.0F);
      for (const auto& [bytes, share] : messages) {
        float scale = 0;
        std::memcpy(&scale, bytes.data(), sizeof(scale));
        scale *= static_cast<float>(share);
        for (std::size_t i = 0; i < size_; ++i) {
          const std::byte bit = bytes[sizeof(float) + i / 8] >> (i % 8) & std::byte{1};
          mean[i] += bit == std::byte{1} ? -scale : scale;
        }
      }
    }

   private:
    std::size_t size_;
  };

 public:
  std::string describe() const override { return "scaled signs"; }
  std::unique_ptr<TensorCompressor> compressor(const std::string&,
                                               const Shape& shape) const override {
    return std::make_unique<Compressor>(shape.size());
  }
};

struct Method {
  const char* name;
  std::shared_ptr<GradientCompression> compression;
};

class EachMethod : public ::testing::TestWithParam<Method> {
 protected:
  const GradientCompression& method() const { return *GetParam().compression; }
};

INSTANTIATE_TEST_SUITE_P(Compression, EachMethod,
                         ::testing::Values(Method{"top_k", std::make_shared<TopK>(TopK::Options{
                                                               .fraction = 0.1, .least_size = 1})},
                                           Method{"power_sgd",
                                                  std::make_shared<PowerSgd>(PowerSgd::Options{
                                                      .rank = 2, .least_factor = 1})},
                                           Method{"own_method", std::make_shared<ScaledSigns>()}),
                         [](const auto& each) { return each.param.name; });

const Shape shape{12, 5, 3};
const std::vector<double> shares{0.5, 0.125, 0.375};

std::vector<Tensor> drawn(std::uint64_t reduction) {
  return {normal(3 * reduction, shape), normal(3 * reduction + 1, shape),
          normal(3 * reduction + 2, shape)};
}

bool bit_equal(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const Tensor& x, const Tensor& y) { return bit_equal(x, y); });
}

TEST_P(EachMethod, loses_nothing) {
  SimulatedNodes nodes(method(), shape, shares.size());
  const auto size = static_cast<std::size_t>(shape.size());
  std::vector<double> told(size), received(size);
  for (std::uint64_t reduction = 0; reduction < 20; ++reduction) {
    const std::vector<Tensor> gradients = drawn(reduction);
    for (std::size_t node = 0; node < shares.size(); ++node) {
      add(told, shares[node], gradients[node]);
    }
    add(received, 1, nodes.reduce(gradients, shares));
    std::vector<double> all = received;
    for (std::size_t node = 0; node < shares.size(); ++node) {
      add(all, shares[node], nodes.left[node]);
    }
    for (std::size_t i = 0; i < size; ++i) ASSERT_NEAR(all[i], told[i], 2e-5) << reduction;
  }
}

TEST_P(EachMethod, does_not_ask_nodes_without_samples) {
  SimulatedNodes nodes(method(), shape, shares.size()), all(method(), shape, 2);
  for (std::uint64_t reduction = 0; reduction < 6; ++reduction) {
    const std::vector<Tensor> gradients = drawn(reduction);
    const std::vector<double> present =
        reduction % 2 == 0 ? std::vector<double>{0, 0.25, 0.75} : std::vector<double>{0.5, 0, 0.5};
    const Tensor before = nodes.left[reduction % 2].clone();
    const Tensor mean = nodes.reduce(gradients, present);
    EXPECT_TRUE(bit_equal(nodes.left[reduction % 2], before));
    if (reduction > 0) continue;
    EXPECT_TRUE(bit_equal(mean, all.reduce({gradients[1], gradients[2]}, {0.25, 0.75})));
  }
}

TEST_P(EachMethod, goes_on_from_its_state_to_the_same_bits) {
  SimulatedNodes nodes(method(), shape, shares.size()), resumed(method(), shape, shares.size());
  const auto reduce = [](SimulatedNodes& some, std::uint64_t reduction) {
    // Zeros now and then, with which PowerSGD has to draw anew.
    std::vector<Tensor> gradients = drawn(reduction);
    if (reduction % 3 == 0) {
      for (std::size_t node = 0; node < gradients.size(); ++node) {
        gradients[node].fill(0);
        some.left[node].fill(0);
      }
    }
    return some.reduce(gradients, shares);
  };
  for (std::uint64_t reduction = 0; reduction < 5; ++reduction) reduce(nodes, reduction);
  const StateDict saved = nodes.compressors[1]->state_dict().clone();
  for (std::size_t node = 0; node < shares.size(); ++node) {
    resumed.compressors[node]->check_restore(saved);
    resumed.compressors[node]->restore(saved);
    resumed.left[node] = nodes.left[node].clone();
  }
  for (std::uint64_t reduction = 5; reduction < 12; ++reduction) {
    ASSERT_TRUE(bit_equal(reduce(nodes, reduction), reduce(resumed, reduction))) << reduction;
    ASSERT_TRUE(bit_equal(nodes.left, resumed.left)) << reduction;
  }
}

TEST_P(EachMethod, is_as_before_after_a_reduction_that_was_given_up) {
  SimulatedNodes nodes(method(), shape, shares.size()), others(method(), shape, shares.size());
  std::vector<Tensor> zeros = drawn(0);
  for (Tensor& gradient : zeros) gradient.fill(0);
  for (std::uint64_t reduction = 0; reduction < 4; ++reduction) {
    const StateDict before = nodes.compressors[0]->state_dict().clone();
    for (std::size_t rounds = 0; rounds <= nodes.rounds(); ++rounds) {
      nodes.give_up(drawn(100 + reduction), shares, rounds);
      nodes.give_up(zeros, shares, rounds);
      EXPECT_TRUE(bit_equal(nodes.compressors[0]->state_dict(), before));
    }
    const std::vector<Tensor> gradients = drawn(reduction);
    ASSERT_TRUE(bit_equal(nodes.reduce(gradients, shares), others.reduce(gradients, shares)));
    ASSERT_TRUE(bit_equal(nodes.left, others.left));
  }
}

TEST_P(EachMethod, takes_no_memory_in_a_reduction) {
  const std::unique_ptr<TensorCompressor> compressor = method().compressor("weight", shape);
  const std::vector<std::size_t> sizes = compressor->message_bytes();
  Tensor gradient = normal(1, shape), mean = Tensor::zeros(shape);
  Tensor memory = Tensor::zeros({1 << 12}, DType::u8);
  const auto reduce = [&] {
    for (std::size_t round = 0; round < sizes.size(); ++round) {
      const auto message = std::as_writable_bytes(memory.span<std::uint8_t>()).first(sizes[round]);
      memory.fill(0);
      compressor->encode(round, gradient.span<float>(), message);
      const NodeMessage read{message, 1};
      compressor->decode(round, {&read, 1}, mean.span<float>());
    }
    compressor->end(true);
  };
  reduce();
  const std::size_t before = allocated_bytes();
  for (int i = 0; i < 5; ++i) reduce();
  gradient.fill(0);
  reduce();
  EXPECT_EQ(allocated_bytes(), before);
}

// As PowerSGD does in the middle of a reduction, where one rank alone must not fail.
TEST(Compression, multiplies_matrices_where_there_is_no_memory) {
  constexpr std::int64_t m = 200, n = 100, k = 300;
  const Tensor a = normal(1, {m, k}), b = normal(2, {k, n});
  const auto product = [&](std::size_t allocations) {
    Tensor c = Tensor::zeros({m, n});
    memory_pool::give_back();
    allocations_left() = allocations;
    kernels::gemm(kernels::Transpose::no, kernels::Transpose::no, m, n, k, a.data<float>(),
                  b.data<float>(), c.data<float>(), false);
    EXPECT_EQ(allocations_left(), allocations - 1);  // it has asked for some
    allocations_left() = SIZE_MAX;
    return c;
  };
  EXPECT_TRUE(bit_equal(product(0), product(1)));
}

// Least squares: node n has f_n(x) = Σ_i h_i (x_i - t_n,i)² / 2, with targets of its own, so that its
// gradient does not vanish at the optimum of all nodes. Returns the loss above the optimum, as a
// part of what it was at first, after descent with a rate that falls.
double loss_after(const std::function<Tensor(const std::vector<Tensor>&)>& reduce, int steps) {
  std::vector<Tensor> targets = drawn(50), gradients = drawn(0);
  for (Tensor& target : targets) {
    for (std::int64_t i = 0; i < target.size(); i += 4) target.data<float>()[i] *= 10;
  }
  const auto size = static_cast<std::size_t>(shape.size());
  std::vector<double> x(size), optimum(size);
  for (std::size_t node = 0; node < shares.size(); ++node) {
    add(optimum, shares[node], targets[node]);
  }
  const auto curvature = [](std::size_t i) { return 0.5 + 0.5 * static_cast<double>(i % 7) / 6; };
  const auto loss = [&] {
    double sum = 0;
    for (std::size_t i = 0; i < size; ++i) {
      sum += curvature(i) * (x[i] - optimum[i]) * (x[i] - optimum[i]) / 2;
    }
    return sum;
  };
  const double first = loss();
  for (int step = 0; step < steps; ++step) {
    for (std::size_t node = 0; node < shares.size(); ++node) {
      for (std::size_t i = 0; i < size; ++i) {
        const double target = static_cast<double>(targets[node].span<float>()[i]);
        gradients[node].span<float>()[i] = static_cast<float>(curvature(i) * (x[i] - target));
      }
    }
    add(x, -0.1 / (1 + 0.02 * step), reduce(gradients));
  }
  return loss() / first;
}

TEST_P(EachMethod, descends_to_the_optimum) {
  SimulatedNodes nodes(method(), shape, shares.size());
  const auto compressed = [&](const auto& gradients) { return nodes.reduce(gradients, shares); };
  const auto exact = [](const std::vector<Tensor>& gradients) {
    std::vector<double> sum(static_cast<std::size_t>(shape.size()));
    for (std::size_t node = 0; node < shares.size(); ++node) {
      add(sum, shares[node], gradients[node]);
    }
    return Tensor::from(sum, shape).to(DType::f32);
  };
  EXPECT_LT(loss_after(exact, 1500), 1e-6);
  EXPECT_LT(loss_after(compressed, 1500), 1e-3);
}

TEST(Compression, without_what_is_left_does_not_descend_to_the_optimum) {
  SimulatedNodes nodes(TopK({.fraction = 0.1, .least_size = 1}), shape, shares.size());
  const auto forgetful = [&](const std::vector<Tensor>& gradients) {
    for (Tensor& left : nodes.left) left.fill(0);
    return nodes.reduce(gradients, shares);
  };
  EXPECT_GT(loss_after(forgetful, 1500), 0.05);
}

}  // namespace compression_test
}  // namespace lockstep
