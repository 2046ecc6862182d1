#include "lockstep/nn/model_file.hpp"

#include <fmt/format.h>

#include <toml++/toml.h>
#include <array>
#include <cstdlib>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/nn/batch_norm.hpp"
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

Size2d size2d(OptionReader& options, const char* name, std::optional<Size2d> otherwise = {}) {
  if (!options.has(name) && otherwise) return *otherwise;
  const std::vector<std::int64_t> found = options.integers(name);
  if (found.size() != 1 && found.size() != 2) {
    throw OptionError(
        fmt::format("option '{}': expected one number or two, found {}", name, found.size()));
  }
  for (const std::int64_t number : found) {
    if (std::abs(number) < 1'000'000'000) continue;
    throw OptionError(fmt::format("option '{}': {} is too large", name, number));
  }
  return {found.front(), found.back()};
}

std::shared_ptr<Module> make_linear(OptionReader& options) {
  const std::int64_t in = extent(options, "in"), out = extent(options, "out");
  return std::make_shared<Linear>(
      in, out,
      LinearOptions{.bias = options.flag("bias", true), .dtype = dtype_of_option(options)});
}

std::shared_ptr<Module> make_conv2d(OptionReader& options) {
  const std::int64_t in = extent(options, "in"), out = extent(options, "out");
  return std::make_shared<Conv2d>(in, out, size2d(options, "kernel"),
                                  Conv2dOptions{.stride = size2d(options, "stride", 1),
                                                .padding = size2d(options, "padding", 0),
                                                .bias = options.flag("bias", true),
                                                .dtype = dtype_of_option(options)});
}

std::shared_ptr<Module> make_max_pool2d(OptionReader& options) {
  const Size2d kernel = size2d(options, "kernel");
  return std::make_shared<MaxPool2d>(kernel,
                                     PoolingOptions{.stride = size2d(options, "stride", kernel),
                                                    .padding = size2d(options, "padding", 0)});
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

constexpr std::array<LayerType, 10> layer_types{
    {{"linear", make_linear, true},
     {"conv2d", make_conv2d, true},
     {"max_pool2d", make_max_pool2d},
     {"batch_norm", make_batch_norm, true},
     {"relu", make_plain<ReLU>},
     {"tanh", make_plain<Tanh>},
     {"sigmoid", make_plain<Sigmoid>},
     {"gelu", make_plain<GELU>},
     {"flatten", make_plain<Flatten>},
     {"dropout", [](OptionReader& options) -> std::shared_ptr<Module> {
        return std::make_shared<Dropout>(options.number("p", 0.5));
      }}}};

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

[[noreturn]] void refuse(const std::filesystem::path& path, const toml::source_region& where,
                         const std::string& message) {
  throw DataError(fmt::format("{}, line {}: {}", path.string(), where.begin.line, message));
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

Sequential read_model(const std::filesystem::path& path) {
  toml::table file;
  try {
    file = toml::parse_file(path.string());
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
