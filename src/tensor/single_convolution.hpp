#pragma once

#include <cstdint>
#include <vector>

#include "lockstep/tensor/activation.hpp"
#include "lockstep/tensor/tensor.hpp"
#include "tensor/windows.hpp"

// Convolutions with stride 1 of one channel to one map, as those of groups have it that are as many as channels: sums over
// taps in vectors of windows, where a product of matrices would have one row. For T = float and double. Unlike those of
// gemm(), the sums have no fused multiply-adds.
namespace lockstep::kernels {

template <class T>
class SingleConvolution {
 public:
  /// suits_direct(windows)
  explicit SingleConvolution(const Windows& windows);

  /// Of the taps, which it does not copy.
  void set_weight(const T* weight) { weight_ = weight; }

  /// y (windows) = f(weight · windows of the image + bias); without a bias where that is nullptr.
  void convolve(const T* image, const T* bias, Activation f, T* y);
  /// y (windows) += weight · windows of the image
  void add_convolved(const T* image, T* y);

  /// dw (taps) += Σ over windows of dz · what the tap sees of the image. A pixel that is not finite makes all taps NaN.
  void add_weight_gradient(const T* image, const T* dz, T* dw);

 private:
  template <class F>
  void multiply(const T* image, F f);

  Windows windows_;
  std::vector<std::int64_t> taps_,
      rows_;  // offsets in a padded image, of taps and of rows of windows
  const T* weight_ = nullptr;
  Tensor padded_, gradient_;  // the latter with zeros behind each row
};

}  // namespace lockstep::kernels
