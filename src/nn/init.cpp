#include "lockstep/nn/init.hpp"

#include <fmt/format.h>

#include <cmath>

#include "lockstep/core/error.hpp"

namespace lockstep::nn::init {
namespace {

struct Fans {
  double in, out;
};

Fans fans(const Tensor& weight) {
  const Shape& shape = weight.shape();
  if (shape.rank() < 2) {
    throw ShapeError(fmt::format(
        "initialisation by fan needs a weight of at least two axes, found {}", to_string(shape)));
  }
  double receptive = 1;
  for (std::size_t axis = 2; axis < shape.rank(); ++axis) {
    receptive *= static_cast<double>(shape[axis]);
  }
  return {static_cast<double>(shape[1]) * receptive, static_cast<double>(shape[0]) * receptive};
}

double kaiming_deviation(const Tensor& weight, double a) {
  return std::sqrt(2 / (1 + a * a) / fans(weight).in);
}

double xavier_deviation(const Tensor& weight, double gain) {
  const auto [in, out] = fans(weight);
  return gain * std::sqrt(2 / (in + out));
}

// The uniform distribution around 0 with the given standard deviation.
void uniform(Tensor& tensor, RandomKey key, double deviation) {
  const double bound = std::sqrt(3.0) * deviation;
  fill_uniform(tensor, key, -bound, bound);
}

}  // namespace

void kaiming_uniform(Tensor& weight, RandomKey key, double a) {
  uniform(weight, key, kaiming_deviation(weight, a));
}

void kaiming_normal(Tensor& weight, RandomKey key, double a) {
  fill_normal(weight, key, 0, kaiming_deviation(weight, a));
}

void xavier_uniform(Tensor& weight, RandomKey key, double gain) {
  uniform(weight, key, xavier_deviation(weight, gain));
}

void xavier_normal(Tensor& weight, RandomKey key, double gain) {
  fill_normal(weight, key, 0, xavier_deviation(weight, gain));
}

void default_bias(Tensor& bias, RandomKey key, std::int64_t fan_in) {
  const double bound = fan_in > 0 ? 1 / std::sqrt(static_cast<double>(fan_in)) : 0;
  fill_uniform(bias, key, -bound, bound);
}

}  // namespace lockstep::nn::init
