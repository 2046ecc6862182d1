#include "lockstep/nn/layers.hpp"

#include <fmt/format.h>

#include <cmath>

#include "lockstep/autograd/operations.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/nn/init.hpp"

namespace lockstep::nn {

Linear::Linear(std::int64_t in, std::int64_t out, const LinearOptions& options)
    : weight(Tensor::empty({out, in}, options.dtype)) {
  if (options.bias) bias = Parameter(Tensor::empty({out}, options.dtype));
  Linear::reset_parameters(RandomKey(0));
}

void Linear::visit(Visitor& visitor) {
  visitor("weight", weight);
  visitor("bias", bias);
}

void Linear::reset_parameters(RandomKey key) {
  init::kaiming_uniform(weight.mutable_value(), key.fold("weight"), std::sqrt(5.0));
  if (bias.defined()) {
    init::default_bias(bias.mutable_value(), key.fold("bias"), weight.shape()[1]);
  }
}

Variable Linear::forward(const Variable& x) { return linear(x, weight, bias); }

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

void Sequential::visit(Visitor& visitor) {
  for (std::size_t i = 0; i < modules_.size(); ++i) visitor(std::to_string(i), *modules_[i]);
}

Variable Sequential::forward(const Variable& x) {
  Variable y = x;
  for (const auto& module : modules_) y = module->forward(y);
  return y;
}

}  // namespace lockstep::nn
