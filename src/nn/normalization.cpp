#include "lockstep/nn/normalization.hpp"

#include <fmt/format.h>

#include "lockstep/autograd/normalization.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep::nn {
namespace {

void check_eps(const char* what, double eps) {
  if (!(eps > 0)) throw OptionError(fmt::format("{}: expected eps > 0, found {}", what, eps));
}

void make(Parameter& weight, Parameter& bias, const Shape& shape, const NormOptions& options) {
  if (!options.affine) return;
  weight = Parameter(Tensor::full(shape, 1, options.dtype));
  bias = Parameter(Tensor::zeros(shape, options.dtype));
}

void fill(Parameter& weight, Parameter& bias) {
  if (!weight.defined()) return;
  weight.mutable_value().fill(1);
  bias.mutable_value().fill(0);
}

}  // namespace

LayerNorm::LayerNorm(const Shape& features, const NormOptions& options)
    : features_(features), eps_(options.eps) {
  check_eps("LayerNorm", eps_);
  if (features.rank() == 0 || features.size() == 0) {
    throw OptionError(
        fmt::format("LayerNorm: expected at least one feature, found {}", to_string(features)));
  }
  make(weight, bias, features, options);
}

LayerNorm::LayerNorm(std::int64_t features, const NormOptions& options)
    : LayerNorm(Shape{features}, options) {}

void LayerNorm::visit(Visitor& visitor) {
  visitor("weight", weight);
  visitor("bias", bias);
}

void LayerNorm::reset_parameters(RandomKey) { fill(weight, bias); }

Variable LayerNorm::forward(const Variable& x) {
  return layer_norm(x, features_, weight, bias, eps_);
}

GroupNorm::GroupNorm(std::int64_t groups, std::int64_t channels, const NormOptions& options)
    : groups_(groups), channels_(channels), eps_(options.eps) {
  check_eps("GroupNorm", eps_);
  if (channels < 1 || groups < 1 || channels % groups != 0) {
    throw OptionError(fmt::format("GroupNorm: expected groups that divide {} channels, found {}",
                                  channels, groups));
  }
  make(weight, bias, {channels}, options);
}

void GroupNorm::visit(Visitor& visitor) {
  visitor("weight", weight);
  visitor("bias", bias);
}

void GroupNorm::reset_parameters(RandomKey) { fill(weight, bias); }

Variable GroupNorm::forward(const Variable& x) {
  if (x.shape().rank() < 2 || x.shape()[1] != channels_) {
    throw ShapeError(fmt::format("GroupNorm: expected an input of shape (n, {}, ...), found {}",
                                 channels_, to_string(x.shape())));
  }
  return group_norm(x, groups_, weight, bias, eps_);
}

}  // namespace lockstep::nn
