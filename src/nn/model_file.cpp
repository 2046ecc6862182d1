#include "lockstep/nn/model_file.hpp"

#include <fmt/format.h>

#include <toml++/toml.h>
#include <cstdlib>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/nn/attention.hpp"
#include "lockstep/nn/batch_norm.hpp"
#include "lockstep/nn/normalization.hpp"
#include "lockstep/nn/recurrent.hpp"
#include "state/option_reader.hpp"

namespace lockstep::nn {
namespace {

DType dtype_of_option(OptionReader& options) {
  return options.choice<DType>("dtype", {{"f32", DType::f32}, {"f64", DType::f64}}, DType::f32);
}

std::int64_t extent(OptionReader& options, const char* name) {
  const std::int64_t found = options.integer(name);
  if (found < 1) {
    throw OptionError(fmt::format("option '{}': expected at least 1, found {}", name, found));
  }
  return found;
}

template <class Size>
Size size_from(const std::vector<std::int64_t>& numbers) {
  if constexpr (std::is_same_v<Size, Size2d>) {
    return {numbers[0], numbers[1]};
  } else if constexpr (std::is_same_v<Size, Size3d>) {
    return {numbers[0], numbers[1], numbers[2]};
  } else {
    return numbers[0];
  }
}

// One number for all axes, or one for each.
template <class Size>
Size size(OptionReader& options, const char* name, std::optional<Size> otherwise = {}) {
  if (!options.has(name) && otherwise) return *otherwise;
  constexpr std::size_t axes = sizeof(Size) / sizeof(std::int64_t);
  std::vector<std::int64_t> found = options.integers(name);
  if (found.size() != 1 && found.size() != axes) {
    throw OptionError(fmt::format("option '{}': expected one number{}, found {}", name,
                                  axes == 1 ? "" : fmt::format(" or {}", axes), found.size()));
  }
  for (const std::int64_t number : found) {
    if (std::abs(number) < 1'000'000'000) continue;
    throw OptionError(fmt::format("option '{}': {} is too large", name, number));
  }
  found.resize(axes, found.front());
  return size_from<Size>(found);
}

std::shared_ptr<Module> make_linear(OptionReader& options) {
  const std::int64_t in = extent(options, "in"), out = extent(options, "out");
  return std::make_shared<Linear>(
      in, out,
      LinearOptions{.bias = options.flag("bias", true), .dtype = dtype_of_option(options)});
}

template <class Size>
std::shared_ptr<Module> make_conv(OptionReader& options) {
  const std::int64_t in = extent(options, "in"), out = extent(options, "out");
  return std::make_shared<Conv<Size>>(
      in, out, size<Size>(options, "kernel"),
      ConvOptions<Size>{.stride = size<Size>(options, "stride", 1),
                        .padding = size<Size>(options, "padding", 0),
                        .dilation = size<Size>(options, "dilation", 1),
                        .groups = options.integer("groups", 1),
                        .bias = options.flag("bias", true),
                        .dtype = dtype_of_option(options)});
}

template <class Size>
std::shared_ptr<Module> make_conv_transpose(OptionReader& options) {
  const std::int64_t in = extent(options, "in"), out = extent(options, "out");
  return std::make_shared<ConvTranspose<Size>>(
      in, out, size<Size>(options, "kernel"),
      ConvTransposeOptions<Size>{.stride = size<Size>(options, "stride", 1),
                                 .padding = size<Size>(options, "padding", 0),
                                 .dilation = size<Size>(options, "dilation", 1),
                                 .groups = options.integer("groups", 1),
                                 .output_padding = size<Size>(options, "output_padding", 0),
                                 .bias = options.flag("bias", true),
                                 .dtype = dtype_of_option(options)});
}

template <class Size>
std::shared_ptr<Module> make_max_pool(OptionReader& options) {
  const Size kernel = size<Size>(options, "kernel");
  return std::make_shared<MaxPool<Size>>(
      kernel, PoolingOptions<Size>{.stride = size<Size>(options, "stride", kernel),
                                   .padding = size<Size>(options, "padding", 0)});
}

template <class Size>
std::shared_ptr<Module> make_avg_pool(OptionReader& options) {
  const Size kernel = size<Size>(options, "kernel");
  return std::make_shared<AvgPool<Size>>(
      kernel,
      AveragePoolingOptions<Size>{.stride = size<Size>(options, "stride", kernel),
                                  .padding = size<Size>(options, "padding", 0),
                                  .count_include_pad = options.flag("count_include_pad", true)});
}

NormOptions norm_options(OptionReader& options) {
  return {.eps = options.number("eps", 1e-5),
          .affine = options.flag("affine", true),
          .dtype = dtype_of_option(options)};
}

std::shared_ptr<Module> make_layer_norm(OptionReader& options) {
  const std::vector<std::int64_t> features = options.integers("features");
  return std::make_shared<LayerNorm>(Shape(std::span(features)), norm_options(options));
}

std::shared_ptr<Module> make_group_norm(OptionReader& options) {
  const std::int64_t groups = extent(options, "groups"), channels = extent(options, "channels");
  return std::make_shared<GroupNorm>(groups, channels, norm_options(options));
}

std::shared_ptr<Module> make_embedding(OptionReader& options) {
  const std::int64_t count = extent(options, "count"), features = extent(options, "features");
  return std::make_shared<Embedding>(count, features, dtype_of_option(options));
}

std::shared_ptr<Module> make_positional_embedding(OptionReader& options) {
  const std::int64_t longest = extent(options, "longest"), features = extent(options, "features");
  return std::make_shared<PositionalEmbedding>(longest, features, dtype_of_option(options));
}

template <class Layer>
std::shared_ptr<Module> make_recurrent(OptionReader& options) {
  const std::int64_t in = extent(options, "in"), hidden = extent(options, "hidden");
  return std::make_shared<Layer>(
      in, hidden,
      RecurrentOptions{.layers = options.integer("layers", 1),
                       .bias = options.flag("bias", true),
                       .bidirectional = options.flag("bidirectional", false),
                       .dropout = options.number("dropout", 0),
                       .dtype = dtype_of_option(options)});
}

std::shared_ptr<Module> make_attention(OptionReader& options) {
  const std::int64_t features = extent(options, "features"), heads = extent(options, "heads");
  return std::make_shared<MultiheadAttention>(
      features, heads,
      MultiheadAttentionOptions{.bias = options.flag("bias", true),
                                .causal = options.flag("causal", false),
                                .dtype = dtype_of_option(options)});
}

std::shared_ptr<Module> make_transformer(OptionReader& options) {
  const std::int64_t features = extent(options, "features"), heads = extent(options, "heads");
  return std::make_shared<TransformerEncoderLayer>(
      features, heads,
      TransformerEncoderLayerOptions{.feedforward = options.integer("feedforward", 2048),
                                     .dropout = options.number("dropout", 0.1),
                                     .gelu = options.flag("gelu", false),
                                     .norm_first = options.flag("norm_first", false),
                                     .causal = options.flag("causal", false),
                                     .eps = options.number("eps", 1e-5),
                                     .dtype = dtype_of_option(options)});
}

std::shared_ptr<Module> make_unflatten(OptionReader& options) {
  const std::vector<std::int64_t> sample = options.integers("sample");
  return std::make_shared<Unflatten>(Shape(std::span(sample)));
}

std::shared_ptr<Module> make_batch_norm(OptionReader& options) {
  return std::make_shared<BatchNorm>(
      extent(options, "channels"),
      BatchNormOptions{.eps = options.number("eps", 1e-5),
                       .momentum = options.number("momentum", 0.1),
                       .affine = options.flag("affine", true),
                       .track_running_stats = options.flag("track_running_stats", true),
                       .dtype = dtype_of_option(options)});
}

template <class Layer>
std::shared_ptr<Module> make_plain(OptionReader&) {
  return std::make_shared<Layer>();
}

struct LayerType {
  std::string_view name;
  std::shared_ptr<Module> (*make)(OptionReader&);
  bool has_dtype = false;
};

// A layer of one number.
template <class Layer>
std::shared_ptr<Module> make_with(OptionReader& options, const char* name, double otherwise) {
  return std::make_shared<Layer>(options.number(name, otherwise));
}

constexpr LayerType layer_types[]{
    {"linear", make_linear, true},
    {"conv1d", make_conv<std::int64_t>, true},
    {"conv2d", make_conv<Size2d>, true},
    {"conv3d", make_conv<Size3d>, true},
    {"conv_transpose1d", make_conv_transpose<std::int64_t>, true},
    {"conv_transpose2d", make_conv_transpose<Size2d>, true},
    {"conv_transpose3d", make_conv_transpose<Size3d>, true},
    {"max_pool1d", make_max_pool<std::int64_t>},
    {"max_pool2d", make_max_pool<Size2d>},
    {"max_pool3d", make_max_pool<Size3d>},
    {"avg_pool1d", make_avg_pool<std::int64_t>},
    {"avg_pool2d", make_avg_pool<Size2d>},
    {"avg_pool3d", make_avg_pool<Size3d>},
    {"global_avg_pool", make_plain<GlobalAvgPool>},
    {"batch_norm", make_batch_norm, true},
    {"layer_norm", make_layer_norm, true},
    {"group_norm", make_group_norm, true},
    {"embedding", make_embedding, true},
    {"positional_embedding", make_positional_embedding, true},
    {"lstm", make_recurrent<LSTM>, true},
    {"gru", make_recurrent<GRU>, true},
    {"multihead_attention", make_attention, true},
    {"transformer_encoder_layer", make_transformer, true},
    {"relu", make_plain<ReLU>},
    {"tanh", make_plain<Tanh>},
    {"sigmoid", make_plain<Sigmoid>},
    {"gelu", make_plain<GELU>},
    {"silu", make_plain<SiLU>},
    {"softplus", [](OptionReader& o) { return make_with<Softplus>(o, "beta", 1); }},
    {"leaky_relu", [](OptionReader& o) { return make_with<LeakyReLU>(o, "negative_slope", 0.01); }},
    {"elu", [](OptionReader& o) { return make_with<ELU>(o, "alpha", 1); }},
    {"softmax", make_plain<Softmax>},
    {"log_softmax", make_plain<LogSoftmax>},
    {"flatten", make_plain<Flatten>},
    {"unflatten", make_unflatten},
    {"dropout", [](OptionReader& o) { return make_with<Dropout>(o, "p", 0.5); }}};

const LayerType& layer_type(std::string_view name) {
  std::string known;
  for (const LayerType& type : layer_types) {
    if (type.name == name) return type;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", type.name);
  }
  throw NameError(fmt::format("there is no type of layer '{}'; there are {}", name, known));
}

}  // namespace

std::shared_ptr<Module> make_layer(std::string_view type, const StateDict& options) {
  OptionReader reader(fmt::format("layer {}", type), options);
  std::shared_ptr<Module> layer = layer_type(type).make(reader);
  reader.finish();
  return layer;
}

namespace {

[[noreturn]] void refuse(const std::string& path, const toml::source_region& where,
                         const std::string& message) {
  throw DataError(fmt::format("{}, line {}: {}", path, where.begin.line, message));
}

StateValue value_of(const toml::node& node) {
  if (const auto* text = node.as_string()) return StateValue(text->get());
  if (const auto* integer = node.as_integer()) return StateValue(integer->get());
  if (const auto* number = node.as_floating_point()) return StateValue(number->get());
  if (const auto* flag = node.as_boolean()) return StateValue(flag->get());
  if (const auto* list = node.as_array()) {
    StateList values;
    for (const toml::node& one : *list) values.push_back(value_of(one));
    return StateValue(std::move(values));
  }
  throw OptionError("expected a number, a text, a truth value or a list of them");
}

std::shared_ptr<Module> layer_of(const toml::table& table, const std::string& dtype) {
  StateDict options;
  std::string type;
  for (const auto& [key, value] : table) {
    if (key.str() == "type") {
      type = value_of(value).as_string();
    } else {
      options[key.str()] = value_of(value);
    }
  }
  if (type.empty()) throw OptionError("a layer without a type");
  if (!dtype.empty() && layer_type(type).has_dtype) options.insert("dtype", dtype);
  return make_layer(type, options);
}

}  // namespace

Sequential read_model(const std::string& path) {
  toml::table file;
  try {
    file = toml::parse_file(path);
  } catch (const toml::parse_error& error) {
    refuse(path, error.source(), std::string(error.description()));
  }
  Sequential model;
  std::string dtype;
  const toml::array* layers = nullptr;
  for (const auto& [key, value] : file) {
    if (key.str() == "dtype" && value.is_string()) {
      dtype = value.as_string()->get();
    } else if (key.str() == "layer" && value.is_array_of_tables()) {
      layers = value.as_array();
    } else {
      refuse(path, value.source(),
             fmt::format("expected a text `dtype` and tables `[[layer]]`, found '{}'", key.str()));
    }
  }
  if (layers == nullptr) refuse(path, file.source(), "a model without a `[[layer]]`");
  for (const toml::node& layer : *layers) {
    try {
      model.append(layer_of(*layer.as_table(), dtype));
    } catch (const Error& error) {
      refuse(path, layer.source(), error.what());
    }
  }
  return model;
}

}  // namespace lockstep::nn
