#include "lockstep/nn/attention.hpp"

#include <fmt/format.h>

#include "lockstep/autograd/activations.hpp"
#include "lockstep/autograd/operations.hpp"
#include "lockstep/autograd/structure.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/nn/init.hpp"
#include "lockstep/tensor/random.hpp"

namespace lockstep::nn {

void LinearFromZero::reset_parameters(RandomKey key) {
  Linear::reset_parameters(key);
  if (bias.defined()) bias.mutable_value().fill(0);
}

MultiheadAttention::MultiheadAttention(std::int64_t features, std::int64_t heads,
                                       const MultiheadAttentionOptions& options)
    : out_proj(features, features, {.bias = options.bias, .dtype = options.dtype}),
      features_(features),
      options_{.heads = heads, .causal = options.causal} {
  if (features < 1 || heads < 1 || features % heads != 0) {
    throw OptionError(fmt::format(
        "MultiheadAttention: expected heads that divide {} features, found {}", features, heads));
  }
  in_proj_weight = Parameter(Tensor::empty({3 * features, features}, options.dtype));
  if (options.bias) {
    in_proj_bias = Parameter(Tensor::empty({3 * features}, options.dtype));
    out_proj.bias.mutable_value().fill(0);
  }
  MultiheadAttention::reset_parameters(RandomKey(0));
}

void MultiheadAttention::visit(Visitor& visitor) {
  visitor("in_proj_weight", in_proj_weight);
  visitor("in_proj_bias", in_proj_bias);
  visitor("out_proj", out_proj);
}

void MultiheadAttention::reset_parameters(RandomKey key) {
  init::xavier_uniform(in_proj_weight.mutable_value(), key.fold("in_proj_weight"));
  if (in_proj_bias.defined()) in_proj_bias.mutable_value().fill(0);
}

Variable MultiheadAttention::forward(const Variable& x) {
  const Variable projected = linear(x, in_proj_weight, in_proj_bias);
  const auto part = [&](std::int64_t i) {
    return slice(projected, 2, i * features_, (i + 1) * features_);
  };
  return out_proj(attention(part(0), part(1), part(2), options_));
}

Variable MultiheadAttention::forward(const Variable& queries, const Variable& keys,
                                     const Variable& values, const Tensor& key_padding_mask) {
  const auto project = [this](const Variable& x, std::int64_t i) {
    const std::int64_t begin = i * features_, end = begin + features_;
    return linear(x, slice(in_proj_weight, 0, begin, end),
                  in_proj_bias.defined() ? slice(in_proj_bias, 0, begin, end) : Variable());
  };
  AttentionOptions options = options_;
  options.key_padding_mask = key_padding_mask;
  return out_proj(attention(project(queries, 0), project(keys, 1), project(values, 2), options));
}

TransformerEncoderLayer::TransformerEncoderLayer(std::int64_t features, std::int64_t heads,
                                                 const TransformerEncoderLayerOptions& options)
    : self_attn(features, heads, {.causal = options.causal, .dtype = options.dtype}),
      linear1(features, options.feedforward, {.dtype = options.dtype}),
      linear2(options.feedforward, features, {.dtype = options.dtype}),
      norm1(features, {.eps = options.eps, .dtype = options.dtype}),
      norm2(features, {.eps = options.eps, .dtype = options.dtype}),
      dropout(options.dropout),
      dropout1(options.dropout),
      dropout2(options.dropout),
      gelu_(options.gelu),
      norm_first_(options.norm_first) {}

void TransformerEncoderLayer::visit(Visitor& visitor) {
  visitor("self_attn", self_attn);
  visitor("linear1", linear1);
  visitor("dropout", dropout);
  visitor("linear2", linear2);
  visitor("norm1", norm1);
  visitor("norm2", norm2);
  visitor("dropout1", dropout1);
  visitor("dropout2", dropout2);
}

Variable TransformerEncoderLayer::forward(const Variable& x) { return forward(x, Tensor()); }

Variable TransformerEncoderLayer::forward(const Variable& x, const Tensor& key_padding_mask) {
  const auto attend = [&](const Variable& y) {
    return dropout1(key_padding_mask.defined() ? self_attn.forward(y, y, y, key_padding_mask)
                                               : self_attn(y));
  };
  const auto feed = [&](const Variable& y) {
    const Variable between = gelu_ ? gelu(linear1(y)) : linear1.forward(y, Activation::relu);
    return dropout2(linear2(dropout(between)));
  };
  if (norm_first_) {
    const Variable y = x + attend(norm1(x));
    return y + feed(norm2(y));
  }
  const Variable y = norm1(x + attend(x));
  return norm2(y + feed(y));
}

PositionalEmbedding::PositionalEmbedding(std::int64_t longest, std::int64_t features, DType dtype)
    : weight(Tensor::empty({longest, features}, dtype)) {
  PositionalEmbedding::reset_parameters(RandomKey(0));
}

void PositionalEmbedding::visit(Visitor& visitor) { visitor("weight", weight); }

void PositionalEmbedding::reset_parameters(RandomKey key) {
  fill_normal(weight.mutable_value(), key.fold("weight"), 0, 0.02);
}

Variable PositionalEmbedding::forward(const Variable& x) {
  const Shape& shape = x.shape();
  const std::int64_t longest = weight.shape()[0], features = weight.shape()[1];
  if (shape.rank() != 3 || shape[1] > longest || shape[2] != features) {
    throw ShapeError(
        fmt::format("PositionalEmbedding: expected an input of shape (n, up to {}, {}), found {}",
                    longest, features, to_string(shape)));
  }
  std::vector<std::int64_t> steps;
  for (std::int64_t i = 0; i < shape[0] * shape[1]; ++i) steps.push_back(i % shape[1]);
  return x + embedding(Tensor::from(steps, {shape[0], shape[1]}), weight);
}

}  // namespace lockstep::nn
