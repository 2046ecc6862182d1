#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "lockstep/autograd/recurrent.hpp"
#include "lockstep/nn/module.hpp"

#pragma GCC visibility push(default)

namespace lockstep::nn {

struct RecurrentOptions {
  std::int64_t layers = 1;  ///< one after another
  bool bias = true;
  bool bidirectional = false;  ///< and a second one of each that begins with the last step
  double dropout = 0;          ///< in training, of what goes from one layer to the next
  DType dtype = DType::f32;
};

/// What LSTM and GRU have in common: their weights, by PyTorch's names, "weight_ih_l0", "weight_hh_l0", "bias_ih_l0",
/// "bias_hh_l0", with "_reverse" behind those of the other direction. They start from U(-1/√h, 1/√h).
class Recurrent : public Module {
 public:
  void visit(Visitor& visitor) override;

  /// Of a layer, and a direction: 0, or 1 for that which begins with the last step.
  RecurrentWeights weights(std::int64_t layer, std::int64_t direction = 0) const;

 protected:
  Recurrent(const char* what, std::int64_t gates, std::int64_t in, std::int64_t hidden,
            const RecurrentOptions& options);
  void reset_parameters(RandomKey key) override;

  std::int64_t directions() const noexcept { return options_.bidirectional ? 2 : 1; }
  /// x, with what dropout makes of it where it comes from the layer before.
  Variable input_of(std::int64_t layer, const Variable& x);

  std::int64_t hidden_;
  RecurrentOptions options_;

 private:
  std::vector<std::pair<std::string, Parameter>> parameters_;
  RandomState random_;
};

/// lstm over sequences of (n, steps, in): the outputs of the last layer, (n, steps, h), or (n, steps, 2 · h) with those
/// of both directions. OptionError unless in, hidden and layers are at least 1, and 0 ≤ dropout < 1.
class LSTM : public Recurrent {
 public:
  LSTM(std::int64_t in, std::int64_t hidden, const RecurrentOptions& options = {});

  Variable forward(const Variable& x) override;

  /// h and c, (n, h) each, of each layer and direction, those of a layer together.
  struct State {
    std::vector<Variable> hidden, cell;
  };
  /// From a state, which may be empty, to that after the last step. ShapeError for another number of them.
  std::pair<Variable, State> forward(const Variable& x, const State& state);
};

/// gru over sequences of (n, steps, in), as LSTM is lstm.
class GRU : public Recurrent {
 public:
  GRU(std::int64_t in, std::int64_t hidden, const RecurrentOptions& options = {});

  Variable forward(const Variable& x) override;
  /// From h, (n, h), of each layer and direction, or nothing, to that after the last step.
  std::pair<Variable, std::vector<Variable>> forward(const Variable& x,
                                                     const std::vector<Variable>& hidden);
};

}  // namespace lockstep::nn

#pragma GCC visibility pop
