#pragma once

#include <cstdint>

#include "lockstep/nn/module.hpp"

#pragma GCC visibility push(default)

namespace lockstep::nn {

struct NormOptions {
  double eps = 1e-5;   ///< added to the variance
  bool affine = true;  ///< has weight and bias
  DType dtype = DType::f32;
};

/// layer_norm over the last axes, which are `features`. OptionError unless these have at least one number, and eps > 0.
class LayerNorm : public Module {
 public:
  explicit LayerNorm(const Shape& features, const NormOptions& options = {});
  explicit LayerNorm(std::int64_t features, const NormOptions& options = {});

  void visit(Visitor& visitor) override;
  Variable forward(const Variable& x) override;

  Parameter weight;  ///< of shape `features`, starts as 1; undefined unless affine
  Parameter bias;    ///< the same, starts as 0

 protected:
  void reset_parameters(RandomKey key) override;

 private:
  Shape features_;
  double eps_;
};

/// group_norm over groups of channels. OptionError unless groups ≥ 1 divide the channels, and eps > 0.
class GroupNorm : public Module {
 public:
  GroupNorm(std::int64_t groups, std::int64_t channels, const NormOptions& options = {});

  void visit(Visitor& visitor) override;
  Variable forward(const Variable& x) override;

  Parameter weight;  ///< (channels), starts as 1; undefined unless affine
  Parameter bias;    ///< the same, starts as 0

 protected:
  void reset_parameters(RandomKey key) override;

 private:
  std::int64_t groups_, channels_;
  double eps_;
};

}  // namespace lockstep::nn

#pragma GCC visibility pop
