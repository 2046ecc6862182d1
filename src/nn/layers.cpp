#include "lockstep/nn/layers.hpp"

#include <fmt/format.h>

#include <cmath>
#include <optional>
#include <span>
#include <typeinfo>
#include <utility>
#include <vector>

#include "lockstep/autograd/operations.hpp"
#include "lockstep/autograd/structure.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/nn/init.hpp"
#include "nn/reset.hpp"

namespace lockstep::nn {

void reset(Parameter& weight, Parameter& bias, RandomKey key) {
  init::kaiming_uniform(weight.mutable_value(), key.fold("weight"), std::sqrt(5.0));
  if (!bias.defined()) return;
  std::int64_t fan_in = 1;
  for (std::size_t axis = 1; axis < weight.shape().rank(); ++axis) fan_in *= weight.shape()[axis];
  init::default_bias(bias.mutable_value(), key.fold("bias"), fan_in);
}

Linear::Linear(std::int64_t in, std::int64_t out, const LinearOptions& options)
    : weight(Tensor::empty({out, in}, options.dtype)) {
  if (options.bias) bias = Parameter(Tensor::empty({out}, options.dtype));
  Linear::reset_parameters(RandomKey(0));
}

void Linear::visit(Visitor& visitor) {
  visitor("weight", weight);
  visitor("bias", bias);
}

void Linear::reset_parameters(RandomKey key) { reset(weight, bias, key); }

Variable Linear::forward(const Variable& x) { return forward(x, Activation::none); }

Variable Linear::forward(const Variable& x, Activation f) { return linear(x, weight, bias, f); }

Dropout::Dropout(double p) : p_(p) {
  if (!(p >= 0 && p < 1)) {
    throw OptionError(fmt::format("Dropout: expected 0 <= p < 1, found p = {}", p));
  }
}

void Dropout::visit(Visitor& visitor) { visitor("random", random_); }

Variable Dropout::forward(const Variable& x) {
  return training() ? dropout(x, p_, random_.next()) : x;
}

Variable Flatten::forward(const Variable& x) {
  const Shape& shape = x.shape();
  if (shape.rank() == 0) throw ShapeError("Flatten: expected at least one axis, found shape ()");
  std::int64_t features = 1;
  for (std::size_t axis = 1; axis < shape.rank(); ++axis) features *= shape[axis];
  return reshape(x, {shape[0], features});
}

Variable Unflatten::forward(const Variable& x) {
  const Shape& shape = x.shape();
  std::vector<std::int64_t> extents(sample_.begin(), sample_.end());
  extents.insert(extents.begin(), shape.rank() == 0 ? 1 : shape[0]);
  const Shape result{std::span(std::as_const(extents))};
  if (shape.rank() == 0 || result.size() != shape.size()) {
    throw ShapeError(
        fmt::format("Unflatten: expected samples of shape {}, found an input of shape {}",
                    to_string(sample_), to_string(shape)));
  }
  return reshape(x, result);
}

Embedding::Embedding(std::int64_t count, std::int64_t features, DType dtype)
    : weight(Tensor::empty({count, features}, dtype)) {
  Embedding::reset_parameters(RandomKey(0));
}

void Embedding::visit(Visitor& visitor) { visitor("weight", weight); }

void Embedding::reset_parameters(RandomKey key) {
  fill_normal(weight.mutable_value(), key.fold("weight"), 0, 1);
}

Variable Embedding::forward(const Variable& indices) { return embedding(indices.value(), weight); }

Residual::Residual(std::shared_ptr<Module> body, std::shared_ptr<Module> shortcut)
    : body_(std::move(body)), shortcut_(std::move(shortcut)) {
  if (body_ == nullptr) throw OptionError("a Residual of a body that is nullptr");
}

void Residual::visit(Visitor& visitor) {
  visitor("body", *body_);
  if (shortcut_ != nullptr) visitor("shortcut", *shortcut_);
}

Variable Residual::forward(const Variable& x) {
  return body_->forward(x) + (shortcut_ == nullptr ? x : shortcut_->forward(x));
}

void Sequential::append(std::shared_ptr<Module> module) {
  if (module == nullptr) throw OptionError("a Sequential of a module that is nullptr");
  modules_.push_back(std::move(module));
}

void Sequential::visit(Visitor& visitor) {
  for (std::size_t i = 0; i < modules_.size(); ++i) visitor(std::to_string(i), *modules_[i]);
}

namespace {

// The module as an M, and not as what is derived from it, which may compute something else.
template <class M>
M* exactly(Module& module) {
  return typeid(module) == typeid(M) ? static_cast<M*>(&module) : nullptr;
}

Activation activation_of(Module& module) {
  if (exactly<ReLU>(module) != nullptr) return Activation::relu;
  if (exactly<Tanh>(module) != nullptr) return Activation::tanh;
  if (exactly<Sigmoid>(module) != nullptr) return Activation::sigmoid;
  return Activation::none;
}

// Some modules in a row that are one operation.
struct Fused {
  Variable result;
  std::size_t modules;
};

Activation activation_at(std::span<const std::shared_ptr<Module>> modules, std::size_t i) {
  return i < modules.size() ? activation_of(*modules[i]) : Activation::none;
}

// A convolution with an activation and a max pooling after it, where there are.
template <class Size>
std::optional<Fused> convolve(const Variable& x, std::span<const std::shared_ptr<Module>> modules) {
  auto* const convolution = exactly<Conv<Size>>(*modules[0]);
  if (convolution == nullptr) return std::nullopt;
  const Activation f = activation_at(modules, 1);
  const std::size_t next = f == Activation::none ? 1 : 2;
  if (next < modules.size()) {
    if (const auto* const pooling = exactly<MaxPool<Size>>(*modules[next])) {
      return Fused{convolution->forward(x, f, *pooling), next + 1};
    }
  }
  return Fused{convolution->forward(x, f), next};
}

Fused run_first(const Variable& x, std::span<const std::shared_ptr<Module>> modules) {
  if (auto* const linear = exactly<Linear>(*modules[0])) {
    const Activation f = activation_at(modules, 1);
    return {linear->forward(x, f), f == Activation::none ? std::size_t{1} : 2};
  }
  if (auto lines = convolve<std::int64_t>(x, modules)) return *lines;
  if (auto images = convolve<Size2d>(x, modules)) return *images;
  if (auto deep = convolve<Size3d>(x, modules)) return *deep;
  return {modules[0]->forward(x), 1};
}

}  // namespace

Variable Sequential::forward(const Variable& x) {
  Variable y = x;
  for (std::size_t i = 0; i < modules_.size();) {
    const Fused first = run_first(y, std::span(modules_).subspan(i));
    y = first.result;
    i += first.modules;
  }
  return y;
}

}  // namespace lockstep::nn
