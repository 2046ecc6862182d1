#pragma once

#include <cstdint>

#include "lockstep/autograd/attention.hpp"
#include "lockstep/nn/layers.hpp"
#include "lockstep/nn/normalization.hpp"

#pragma GCC visibility push(default)

namespace lockstep::nn {

struct MultiheadAttentionOptions {
  bool bias = true;
  bool causal = false;
  DType dtype = DType::f32;
};

/// A Linear whose bias starts as 0.
class LinearFromZero : public Linear {
 public:
  using Linear::Linear;

 protected:
  void reset_parameters(RandomKey key) override;
};

/// attention by heads, of what linear maps make of queries, keys and values of (n, steps, features), with a linear map
/// of the result; names and start as of PyTorch's MultiheadAttention: weights from Xavier's and Linear's distributions,
/// biases 0. OptionError unless heads ≥ 1 divide the features.
class MultiheadAttention : public Module {
 public:
  MultiheadAttention(std::int64_t features, std::int64_t heads,
                     const MultiheadAttentionOptions& options = {});

  void visit(Visitor& visitor) override;
  /// Of x as queries, keys and values.
  Variable forward(const Variable& x) override;
  /// The mask is that of AttentionOptions.
  Variable forward(const Variable& queries, const Variable& keys, const Variable& values,
                   const Tensor& key_padding_mask = {});

  Parameter in_proj_weight;  ///< (3 · features, features): for queries, keys, values
  Parameter in_proj_bias;    ///< (3 · features); undefined without a bias
  LinearFromZero out_proj;

 protected:
  void reset_parameters(RandomKey key) override;

 private:
  std::int64_t features_;
  AttentionOptions options_;
};

struct TransformerEncoderLayerOptions {
  std::int64_t feedforward = 2048;  ///< features in between
  double dropout = 0.1;     ///< in training, of what is added, and of the features in between
  bool gelu = false;        ///< instead of ReLU
  bool norm_first = false;  ///< before what is added is computed, not after
  bool causal = false;
  double eps = 1e-5;
  DType dtype = DType::f32;
};

/// Self-attention and two linear maps of each step of x of (n, steps, features), each added to what it comes from and
/// normalised: Vaswani et al., arXiv:1706.03762, with the names of PyTorch's layer. With norm_first, Xiong et al.,
/// arXiv:2002.04745. Attention itself has no dropout.
class TransformerEncoderLayer : public Module {
 public:
  TransformerEncoderLayer(std::int64_t features, std::int64_t heads,
                          const TransformerEncoderLayerOptions& options = {});

  void visit(Visitor& visitor) override;
  Variable forward(const Variable& x) override;
  Variable forward(const Variable& x, const Tensor& key_padding_mask);

  MultiheadAttention self_attn;
  Linear linear1, linear2;
  LayerNorm norm1, norm2;
  Dropout dropout, dropout1, dropout2;

 private:
  bool gelu_, norm_first_;
};

/// x + weight[step] for x of (n, steps, features): learned positions. ShapeError for more than `longest` steps. Starts
/// from N(0, 0.02²), as in Radford et al., "Improving language understanding by generative pre-training", 2018.
class PositionalEmbedding : public Module {
 public:
  PositionalEmbedding(std::int64_t longest, std::int64_t features, DType dtype = DType::f32);

  void visit(Visitor& visitor) override;
  Variable forward(const Variable& x) override;

  Parameter weight;  ///< (longest, features)

 protected:
  void reset_parameters(RandomKey key) override;
};

}  // namespace lockstep::nn

#pragma GCC visibility pop
