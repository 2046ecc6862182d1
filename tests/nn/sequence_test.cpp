#include <cmath>
#include <string>
#include <vector>

#include "lockstep/autograd/losses.hpp"
#include "lockstep/autograd/structure.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/nn/attention.hpp"
#include "lockstep/nn/recurrent.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/gradient_check.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::nn {
namespace sequence_test {

using testing::throws;
using testing::uniform;

std::vector<std::string> names_of(const Module& module) {
  std::vector<std::string> names;
  for (const NamedParameter& named : module.named_parameters()) names.push_back(named.name);
  return names;
}

TEST(SequenceLayers, have_the_names_of_pytorch) {
  EXPECT_EQ(names_of(LSTM(2, 3, {.layers = 2})),
            (std::vector<std::string>{"weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0",
                                      "weight_ih_l1", "weight_hh_l1", "bias_ih_l1", "bias_hh_l1"}));
  EXPECT_EQ(names_of(GRU(2, 3, {.bias = false, .bidirectional = true})),
            (std::vector<std::string>{"weight_ih_l0", "weight_hh_l0", "weight_ih_l0_reverse",
                                      "weight_hh_l0_reverse"}));
  EXPECT_EQ(names_of(TransformerEncoderLayer(4, 2)),
            (std::vector<std::string>{
                "self_attn.in_proj_weight", "self_attn.in_proj_bias", "self_attn.out_proj.weight",
                "self_attn.out_proj.bias", "linear1.weight", "linear1.bias", "linear2.weight",
                "linear2.bias", "norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"}));
}

TEST(SequenceLayers, start_from_the_distributions_of_pytorch) {
  LSTM lstm(20, 25);
  lstm.initialize(3);
  for (const NamedParameter& named : lstm.named_parameters()) {
    double largest = 0;
    for (const float value : named.parameter.value().span<float>()) {
      largest = std::max(largest, std::abs(static_cast<double>(value)));
    }
    EXPECT_LT(largest, 0.2) << named.name;
    EXPECT_GT(largest, 0.18) << named.name;
  }
  MultiheadAttention attention(40, 4);
  attention.initialize(3);
  EXPECT_TRUE(bit_equal(attention.in_proj_bias.value(), Tensor::zeros({120})));
  EXPECT_TRUE(bit_equal(attention.out_proj.bias.value(), Tensor::zeros({40})));
  double squares = 0;
  for (const float value : attention.in_proj_weight.value().span<float>()) {
    squares += static_cast<double>(value) * static_cast<double>(value);
  }
  EXPECT_NEAR(squares / (120 * 40), 2.0 / 160, 1e-3);  // 2 / (fan_in + fan_out)
}

TEST(SequenceLayers, go_on_from_a_state) {
  LSTM lstm(3, 4, {.layers = 2});
  GRU gru(3, 4, {.layers = 2});
  const Variable x = uniform({2, 6, 3}, 1, -1, 1, DType::f32);
  const Variable first = slice(x, 1, 0, 2), rest = slice(x, 1, 2, 6);
  const auto [begin, state] = lstm.forward(first, LSTM::State());
  const auto [end, last] = lstm.forward(rest, state);
  testing::expect_near(concatenate({begin, end}, 1).value(), lstm(x).value(), 1e-6, "LSTM");
  const auto [of_gru, hidden] = gru.forward(first, std::vector<Variable>());
  testing::expect_near(concatenate({of_gru, gru.forward(rest, hidden).first}, 1).value(),
                       gru(x).value(), 1e-6, "GRU");
  EXPECT_TRUE(throws<ShapeError>([&, only = hidden[0]] { gru.forward(x, {only}); },
                                 "expected 2 states", "found 1"));
}

TEST(SequenceLayers, drop_out_in_training_between_layers_alone) {
  LSTM lstm(3, 4, {.layers = 2, .dropout = 0.5}), single(3, 4, {.dropout = 0.5});
  const Variable x = uniform({2, 3, 3}, 1, -1, 1, DType::f32);
  EXPECT_FALSE(bit_equal(lstm(x).value(), lstm(x).value()));
  EXPECT_TRUE(bit_equal(single(x).value(), single(x).value()));
  lstm.eval();
  EXPECT_TRUE(bit_equal(lstm(x).value(), lstm(x).value()));
}

TEST(SequenceLayers, refuse_options_out_of_range) {
  EXPECT_TRUE(throws<OptionError>([] { LSTM(0, 3); }, "LSTM"));
  EXPECT_TRUE(throws<OptionError>([] { GRU(3, 3, {.layers = 0}); }, "GRU"));
  EXPECT_TRUE(throws<OptionError>([] { GRU(3, 3, {.dropout = 1}); }, "dropout < 1"));
  EXPECT_TRUE(throws<OptionError>([] { MultiheadAttention(6, 4); }, "divide 6 features"));
  PositionalEmbedding positions(4, 3);
  EXPECT_TRUE(throws<ShapeError>(
      [&] {
        positions(Tensor::zeros({2, 5, 3}));
      },
      "up to 4", "(2, 5, 3)"));
}

TEST(MultiheadAttention, of_three_inputs_is_that_of_one) {
  MultiheadAttention attention(6, 3);
  attention.initialize(1);
  const Variable x = uniform({2, 4, 6}, 1, -1, 1, DType::f32);
  testing::expect_near(attention.forward(x, x, x).value(), attention(x).value(), 1e-6, "value");
}

// Which of 8 symbols came first in a sequence: each layer has to carry it to the end.
template <class Body>
double loss_of_recall(Body body) {
  struct Recall : Module {
    Recall(std::int64_t features, Body inner)
        : symbols(8, features), body(std::move(inner)), out(features, 8) {}
    void visit(Visitor& visitor) override {
      visitor("symbols", symbols);
      visitor("body", body);
      visitor("out", out);
    }
    Variable forward(const Variable& x) override {
      const Variable y = body(symbols(x));
      const std::int64_t steps = y.shape()[1];
      return out(reshape(slice(y, 1, steps - 1, steps), {y.shape()[0], y.shape()[2]}));
    }
    Embedding symbols;
    Body body;
    Linear out;
  };
  constexpr std::int64_t samples = 64, steps = 6;
  Recall model(16, std::move(body));
  model.initialize(2);
  NamedOptimizer optimizer(model.named_parameters(), optim::Adam({.lr = 0.01}));
  double loss = 0;
  for (std::uint64_t step = 0; step < 150; ++step) {
    std::vector<std::int64_t> x, first;
    for (std::uint64_t i = 0; i < samples * steps; ++i) {
      x.push_back(static_cast<std::int64_t>(8 * RandomKey(5).fold(step).uniform(i)));
      if (i % steps == 0) first.push_back(x.back());
    }
    optimizer.zero_grad();
    const Variable found =
        cross_entropy(model(Tensor::from(x, {samples, steps})), Tensor::from(first, {samples}));
    found.backward();
    optimizer.step();
    loss = found.value().item();
  }
  return loss;
}

TEST(SequenceLayers, learn_what_came_first) {
  EXPECT_LT(loss_of_recall(LSTM(16, 16)), 0.5);
  EXPECT_LT(loss_of_recall(GRU(16, 16)), 0.5);
  EXPECT_LT(
      loss_of_recall(Sequential(
          PositionalEmbedding(6, 16),
          TransformerEncoderLayer(16, 2, {.feedforward = 32, .dropout = 0, .norm_first = true}))),
      0.5);
}

}  // namespace sequence_test
}  // namespace lockstep::nn
