#pragma once

#include "lockstep/tensor/random.hpp"
#include "lockstep/tensor/tensor.hpp"

#pragma GCC visibility push(default)

// Initialisation of weights of shape (out, in, …): fan_in = in · …, fan_out = out · …
// ShapeError for a tensor of less than two axes.
namespace lockstep::nn::init {

/// U(-b, b) with b = gain · sqrt(3 / fan_in), gain = sqrt(2 / (1 + a²)), for a leaky ReLU of slope
/// a. He, Zhang, Ren, Sun, "Delving deep into rectifiers", ICCV 2015.
void kaiming_uniform(Tensor& weight, RandomKey key, double a = 0.0);
/// N(0, gain² / fan_in)
void kaiming_normal(Tensor& weight, RandomKey key, double a = 0.0);

/// U(-b, b) with b = gain · sqrt(6 / (fan_in + fan_out)).
/// Glorot, Bengio, "Understanding the difficulty of training deep feedforward networks", 2010.
void xavier_uniform(Tensor& weight, RandomKey key, double gain = 1.0);
/// N(0, gain² · 2 / (fan_in + fan_out))
void xavier_normal(Tensor& weight, RandomKey key, double gain = 1.0);

/// PyTorch's default for the bias of a layer of this fan_in: U(-b, b) with b = 1 / sqrt(fan_in).
void default_bias(Tensor& bias, RandomKey key, std::int64_t fan_in);

}  // namespace lockstep::nn::init

#pragma GCC visibility pop
