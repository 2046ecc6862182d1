#include "lockstep/nn/layers.hpp"

#include <fmt/format.h>

#include <cmath>
#include <typeinfo>

#include "autograd/window_options.hpp"
#include "lockstep/autograd/operations.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/nn/init.hpp"

namespace lockstep::nn {

namespace {

// From U(-1/√fan_in, 1/√fan_in), both.
void reset(Parameter& weight, Parameter& bias, RandomKey key) {
  init::kaiming_uniform(weight.mutable_value(), key.fold("weight"), std::sqrt(5.0));
  if (!bias.defined()) return;
  std::int64_t fan_in = 1;
  for (std::size_t axis = 1; axis < weight.shape().rank(); ++axis) fan_in *= weight.shape()[axis];
  init::default_bias(bias.mutable_value(), key.fold("bias"), fan_in);
}

}  // namespace

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

Conv2d::Conv2d(std::int64_t in, std::int64_t out, Size2d kernel, const Conv2dOptions& options)
    : options_{.stride = options.stride, .padding = options.padding} {
  autograd::check_options("Conv2d", kernel, options_);
  weight = Parameter(Tensor::empty({out, in, kernel.height, kernel.width}, options.dtype));
  if (options.bias) bias = Parameter(Tensor::empty({out}, options.dtype));
  Conv2d::reset_parameters(RandomKey(0));
}

void Conv2d::visit(Visitor& visitor) {
  visitor("weight", weight);
  visitor("bias", bias);
}

void Conv2d::reset_parameters(RandomKey key) { reset(weight, bias, key); }

Variable Conv2d::forward(const Variable& x) { return forward(x, Activation::none); }

Variable Conv2d::forward(const Variable& x, Activation f) {
  return conv2d(x, weight, bias, options_, f);
}

MaxPool2d::MaxPool2d(Size2d kernel, const PoolingOptions& options)
    : kernel_(kernel), options_(options) {
  autograd::check_options("MaxPool2d", kernel, options);
}

Variable MaxPool2d::forward(const Variable& x) { return max_pool2d(x, kernel_, options_); }

Variable ReLU::forward(const Variable& x) { return relu(x); }
Variable Tanh::forward(const Variable& x) { return tanh(x); }
Variable Sigmoid::forward(const Variable& x) { return sigmoid(x); }
Variable GELU::forward(const Variable& x) { return gelu(x); }

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

}  // namespace

Variable Sequential::forward(const Variable& x) {
  Variable y = x;
  for (std::size_t i = 0; i < modules_.size(); ++i) {
    Module& module = *modules_[i];
    const Activation f =
        i + 1 < modules_.size() ? activation_of(*modules_[i + 1]) : Activation::none;
    if (auto* const linear = exactly<Linear>(module); linear != nullptr) {
      y = linear->forward(y, f);
    } else if (auto* const conv2d = exactly<Conv2d>(module); conv2d != nullptr) {
      y = conv2d->forward(y, f);
    } else {
      y = module.forward(y);
      continue;
    }
    if (f != Activation::none) ++i;
  }
  return y;
}

}  // namespace lockstep::nn
