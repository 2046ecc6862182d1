#pragma once

#include "lockstep/nn/module.hpp"

#pragma GCC visibility push(default)

// The functions of autograd/activations.hpp as modules.
namespace lockstep::nn {

/// max(x, 0)
class ReLU : public Module {
 public:
  Variable forward(const Variable& x) override;
};

class Tanh : public Module {
 public:
  Variable forward(const Variable& x) override;
};

class Sigmoid : public Module {
 public:
  Variable forward(const Variable& x) override;
};

/// x · Φ(x), exact.
class GELU : public Module {
 public:
  Variable forward(const Variable& x) override;
};

/// x · sigmoid(x)
class SiLU : public Module {
 public:
  Variable forward(const Variable& x) override;
};

/// ln(1 + exp(beta · x)) / beta. OptionError unless beta > 0.
class Softplus : public Module {
 public:
  explicit Softplus(double beta = 1);
  Variable forward(const Variable& x) override;

 private:
  double beta_;
};

/// x above 0, and negative_slope · x below.
class LeakyReLU : public Module {
 public:
  explicit LeakyReLU(double negative_slope = 0.01) : negative_slope_(negative_slope) {}
  Variable forward(const Variable& x) override;

 private:
  double negative_slope_;
};

/// x above 0, and alpha · (exp(x) - 1) below.
class ELU : public Module {
 public:
  explicit ELU(double alpha = 1) : alpha_(alpha) {}
  Variable forward(const Variable& x) override;

 private:
  double alpha_;
};

/// softmax(x) over the last axis, and its logarithm.
class Softmax : public Module {
 public:
  Variable forward(const Variable& x) override;
};

class LogSoftmax : public Module {
 public:
  Variable forward(const Variable& x) override;
};

}  // namespace lockstep::nn

#pragma GCC visibility pop
