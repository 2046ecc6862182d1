#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "lockstep/nn/layers.hpp"

#pragma GCC visibility push(default)

namespace lockstep::nn {

/// A layer by the name of its type, with options by name; those that have a default need not be
/// given:
///
/// - "linear": in, out, bias = true, dtype = "f32"
/// - "conv1d", "conv2d", "conv3d": in, out, kernel, stride = 1, padding = 0, dilation = 1, groups = 1,
///   bias = true, dtype = "f32"
/// - "conv_transpose1d", …: the same, and output_padding = 0
/// - "max_pool1d", …: kernel, stride = kernel, padding = 0
/// - "avg_pool1d", …: the same, and count_include_pad = true
/// - "batch_norm": channels, eps = 1e-5, momentum = 0.1, affine = true, track_running_stats = true,
///   dtype = "f32"
/// - "layer_norm": features, which may be a list, eps = 1e-5, affine = true, dtype = "f32"
/// - "group_norm": groups, channels, and the same
/// - "embedding": count, features, dtype = "f32"
/// - "positional_embedding": longest, features, dtype = "f32"
/// - "lstm", "gru": in, hidden, layers = 1, bias = true, bidirectional = false, dropout = 0, dtype = "f32"
/// - "multihead_attention": features, heads, bias = true, causal = false, dtype = "f32"
/// - "transformer_encoder_layer": features, heads, feedforward = 2048, dropout = 0.1, gelu = false,
///   norm_first = false, causal = false, eps = 1e-5, dtype = "f32"
/// - "relu", "tanh", "sigmoid", "gelu", "silu", "softmax", "log_softmax", "flatten", "global_avg_pool"
/// - "unflatten": sample, a list of extents
/// - "softplus": beta = 1; "leaky_relu": negative_slope = 0.01; "elu": alpha = 1; "dropout": p = 0.5
///
/// Sizes of kernels, strides, paddings and dilations are one number for all axes, or a list with one for each.
/// NameError for another type; OptionError for options that are missing, unknown or out of range.
std::shared_ptr<Module> make_layer(std::string_view type, const StateDict& options);

/// A model from a TOML file, layer by layer:
///
///     dtype = "f64"           # of all layers that do not say otherwise
///
///     [[layer]]
///     type = "linear"
///     in = 8
///     out = 16
///
///     [[layer]]
///     type = "tanh"
///
/// Not collective. DataError, which names file and line, where the file cannot be read or is no
/// such model.
Sequential read_model(const std::string& path);

}  // namespace lockstep::nn

#pragma GCC visibility pop
