#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/nn/layers.hpp"
#include "lockstep/parallel/data_parallel.hpp"
#include "lockstep/parallel/gradient_reducer.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "parallel/compressed_nodes.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace compression_state_test {

using testing::alike;
using testing::CompressedModel;
using testing::CompressedNodes;
using testing::gradient_of;
using testing::methods;
using testing::throws;
using testing::vector;
using testing::world;

TEST_F(CompressedNodes, state_goes_on_with_the_same_bits) {
  for (const auto& method : methods()) {
    CompressedModel model, resumed;
    GradientReducer reducer(model.all(), nodes(), {.compression = method});
    for (std::uint64_t step = 0; step < 3; ++step) model.reduce(reducer, step);
    const StateDict state = reducer.state_dict().clone();
    EXPECT_EQ(state.at("reductions").as_int(), 3);
    GradientReducer other(resumed.all(), nodes(), {.compression = method});
    other.restore(state);
    EXPECT_TRUE(bit_equal(other.state_dict(), state));
    for (std::uint64_t step = 3; step < 6; ++step) {
      model.reduce(reducer, step);
      resumed.reduce(other, step);
      ASSERT_TRUE(alike(model.gradients(), resumed.gradients())) << "step " << step;
    }
  }
}

// What is added to the mean over nodes stays the same.
TEST_F(CompressedNodes, state_is_shared_out_among_another_number_of_nodes) {
  for (const auto& method : methods()) {
    CompressedModel model, resumed;
    GradientReducer reducer(model.all(), nodes(), {.compression = method});
    for (std::uint64_t step = 0; step < 3; ++step) model.reduce(reducer, step);
    const StateDict state = reducer.state_dict().clone();
    const Communicator pairs = nodes(2);
    GradientReducer other(resumed.all(), pairs, {.compression = method});
    other.restore(state);
    const auto node_count = static_cast<std::int64_t>(pairs.placement().nodes.size());
    const StateDict found = other.state_dict();
    for (const auto& [name, entry] : state.at("parameters").as_dict()) {
      const Tensor& before = entry.as_dict().at("left").as_tensor();
      const Tensor& after =
          found.at("parameters").as_dict().at(name).as_dict().at("left").as_tensor();
      const std::int64_t size = before.shape()[1], rows = before.shape()[0];
      ASSERT_EQ(after.shape(), Shape({node_count, size}));
      for (std::int64_t i = 0; i < size; ++i) {
        double mean = 0;
        for (std::int64_t row = 0; row < rows; ++row) {
          mean +=
              static_cast<double>(before.data<float>()[row * size + i]) / static_cast<double>(rows);
        }
        for (std::int64_t row = 0; row < node_count; ++row) {
          // As it was, where each rank has a host of its own and so remains a node of its own.
          const auto number = static_cast<std::size_t>(row * size + i);
          ASSERT_NEAR(after.span<float>()[number],
                      node_count == rows ? before.span<float>()[number] : mean, 1e-6);
        }
      }
    }
    resumed.reduce(other, 3);
  }
}

TEST_F(CompressedNodes, state_that_does_not_fit_is_refused) {
  const auto top_k = methods()[0], power_sgd = methods()[1];
  CompressedModel model, other;
  GradientReducer reducer(model.all(), nodes(), {.compression = top_k});
  GradientReducer without(other.all(), nodes());
  model.reduce(reducer, 0);
  const StateDict state = reducer.state_dict().clone();
  EXPECT_TRUE(without.state_dict().empty());
  EXPECT_NO_THROW(without.restore({}));
  EXPECT_TRUE(throws<StateError>([&] { without.restore(state); }, "compression"));
  EXPECT_TRUE(throws<NameError>([&] { reducer.restore({}); }, "reductions"));

  const auto refuse = [&](auto&& change, auto&& check) {
    StateDict changed = state.clone();
    change(changed);
    check([&] { reducer.restore(changed); });
    EXPECT_TRUE(bit_equal(reducer.state_dict(), state));
  };
  const auto entry = [](StateDict& changed) -> StateDict& {
    return changed["parameters"].as_dict()["weight"].as_dict();
  };
  refuse(
      [&](StateDict& s) {
        entry(s)["left"] = Tensor::zeros({1, 5});
      },
      [](auto&& call) {
        EXPECT_TRUE(throws<ShapeError>(call, "'weight'", "(nodes, 1536)", "(1, 5)"));
      });
  refuse(
      [&](StateDict& s) {
        entry(s)["left"] = Tensor::zeros({1, 1536}, DType::f64);
      },
      [](auto&& call) { EXPECT_TRUE(throws<DTypeError>(call, "'weight'", "f32", "f64")); });
  refuse([&](StateDict& s) { s["parameters"].as_dict()["bias"] = entry(s); },
         [](auto&& call) { EXPECT_TRUE(throws<NameError>(call, "'bias'")); });
  refuse([&](StateDict& s) { s["reductions"] = -1; },
         [](auto&& call) { EXPECT_TRUE(throws<StateError>(call, "-1")); });

  CompressedModel third;
  GradientReducer of_power(third.all(), nodes(), {.compression = power_sgd});
  EXPECT_TRUE(throws<NameError>([&] { of_power.restore(state); }, "q"));
}

/// Sends nothing but the largest number and its place, with a message a number: as a user may write it.
class Largest : public GradientCompression {
 public:
  struct Compressor : TensorCompressor {
    std::vector<std::size_t> message_bytes() const override { return {sizeof(float), 4}; }
    void encode(std::size_t round, std::span<float> gradient,
                std::span<std::byte> message) override {
      const auto largest = std::max_element(gradient.begin(), gradient.end(), [](float a, float b) {
        return std::abs(a) < std::abs(b);
      });
      const auto place = static_cast<std::uint32_t>(largest - gradient.begin());
      if (round == 0) {
        std::memcpy(message.data(), &*largest, sizeof(float));
      } else {
        std::memcpy(message.data(), &place, sizeof(place));
        *largest = 0;
      }
    }
    void decode(std::size_t round, std::span<const NodeMessage> messages,
                std::span<float> mean) override {
      if (round == 0) {
        values.clear();
        for (const NodeMessage& message : messages) {
          float value = 0;
          std::memcpy(&value, message.bytes.data(), sizeof(value));
          values.push_back(static_cast<float>(message.share) * value);
        }
        return;
      }
      std::fill(mean.begin(), mean.end(), 0.0F);
      for (std::size_t i = 0; i < messages.size(); ++i) {
        std::uint32_t place = 0;
        std::memcpy(&place, messages[i].bytes.data(), sizeof(place));
        mean[place] += values[i];
      }
    }
    std::vector<float> values;
  };

  explicit Largest(bool fails = false) : fails_(fails) {}
  std::string describe() const override { return "the largest number"; }
  std::unique_ptr<TensorCompressor> compressor(const std::string& name,
                                               const Shape&) const override {
    if (fails_ && name == "kernel") throw OptionError("cannot compress 'kernel'");
    return std::make_unique<Compressor>();
  }

 private:
  bool fails_;
};

TEST_F(CompressedNodes, a_method_of_ones_own_loses_nothing) {
  const Communicator ranks = nodes();
  CompressedModel model;
  GradientReducer reducer(model.all(), ranks, {.compression = std::make_shared<Largest>()});
  const auto size = static_cast<std::size_t>(vector.size());
  std::vector<double> sent(size), had(size);
  constexpr std::uint64_t steps = 5;
  for (std::uint64_t step = 0; step < steps; ++step) {
    model.write(step);
    for (const Parameter& parameter : {model.bias, model.weight, model.kernel}) {
      reducer.mark_ready(parameter);
    }
    reducer.finish();
    testing::add(sent, 1, model.bias.grad());
    for (int rank = 0; rank < world().size(); ++rank) {
      testing::add(had, 1.0 / world().size(), gradient_of(rank, step, vector));
    }
    const auto zeros = [](const Tensor& tensor) {
      const std::span<const float> all = tensor.span<float>();
      return std::count(all.begin(), all.end(), 0.0F);
    };
    if (world().size() > 1) {
      EXPECT_GE(zeros(model.bias.grad()), vector.size() - world().size());
    }
  }
  const StateDict state = reducer.state_dict();
  if (world().size() == 1) return;
  const Tensor& left = state.at("parameters").as_dict().at("bias").as_dict().at("left").as_tensor();
  for (std::int64_t row = 0; row < world().size(); ++row) {
    testing::add(sent, 1.0 / world().size(), left.rows(row, row + 1));
  }
  for (std::size_t i = 0; i < size; ++i) EXPECT_NEAR(sent[i], had[i], 1e-5);
}

TEST_F(CompressedNodes, options_that_cannot_be_are_refused_on_all_ranks) {
  CompressedModel model;
  const bool last = world().rank() == world().size() - 1;
  EXPECT_TRUE(throws<OptionError>(
      [&] {
        GradientReducer(model.all(), world(), {.compression = std::make_shared<Largest>(last)});
      },
      "cannot compress 'kernel'"));
  nn::Sequential layers{nn::Linear(2, 2)};
  EXPECT_TRUE(throws<OptionError>(
      [&] { DataParallel(layers, world(), {.compression = methods()[0], .logical_replicas = 4}); },
      "logical replicas", "compression"));
  if (world().size() == 1) return;
  const auto own = std::make_shared<TopK>(TopK::Options{.fraction = last ? 0.2 : 0.1});
  EXPECT_TRUE(
      throws<OptionError>([&] { GradientReducer(model.all(), world(), {.compression = own}); },
                          "top-k of 0.1", "found", "top-k of 0.2"));
  EXPECT_TRUE(throws<OptionError>(
      [&] {
        GradientReducer(model.all(), world(), {.compression = last ? nullptr : methods()[1]});
      },
      "PowerSGD", "compression = none"));
  // It is still nobody's.
  GradientReducer reducer(model.all(), nodes(), {.compression = methods()[0]});
  model.reduce(reducer, 0);
}
}  // namespace compression_state_test
}  // namespace lockstep
