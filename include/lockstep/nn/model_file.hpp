#pragma once

#include <filesystem>
#include <memory>
#include <string_view>

#include "lockstep/nn/layers.hpp"

#pragma GCC visibility push(default)

namespace lockstep::nn {

/// A layer by the name of its type, with options by name; those that have a default need not be
/// given:
///
/// - "linear": in, out, bias = true, dtype = "f32"
/// - "conv2d": in, out, kernel, stride = 1, padding = 0, bias = true, dtype = "f32"
/// - "max_pool2d": kernel, stride = kernel, padding = 0
/// - "batch_norm": channels, eps = 1e-5, momentum = 0.1, affine = true, track_running_stats = true,
///   dtype = "f32"
/// - "relu", "tanh", "sigmoid", "gelu", "flatten"
/// - "dropout": p = 0.5
///
/// Sizes of kernels, strides and paddings are one number for both directions, or a list of two.
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
Sequential read_model(const std::filesystem::path& path);

}  // namespace lockstep::nn

#pragma GCC visibility pop
