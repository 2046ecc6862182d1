#pragma once

#include <cstdint>
#include <vector>

#include "lockstep/tensor/activation.hpp"
#include "lockstep/tensor/tensor.hpp"
#include "tensor/windows.hpp"

// Convolutions of one image of (channels, depth, height, width) after another, for T = float and double.
// With stride 1, what a window sees of a padded image, the next one sees one pixel further on. So the row of a tap in the matrix
// of columns (tensor/convolution.hpp) is that image from some pixel on, and the products read it there. They do so for all
// pixels that a window may begin at, also where it would reach beyond the end of a row; what comes of
// these is dropped. With other strides that holds of the phases of an image, which have every stride-th pixel.
namespace lockstep::kernels {

/// Whether strides are short, padding cuts nothing off, and few results would be dropped.
bool suits_direct(const Windows& windows);

/// Those by which an image's gradient is a convolution of that of the result, with stride 1: with padding in which each
/// pixel is seen by as many windows. It is negative where that of the image is as wide as a kernel reaches.
Windows adjoint(const Windows& windows);

/// Results have the bits of im2col() and gemm().
template <class T>
class DirectConvolution {
 public:
  DirectConvolution(const Windows& windows, std::int64_t channels, std::int64_t maps);

  /// Of (maps, channels, taps).
  void set_weight(const T* weight);

  /// y (maps, windows) = f(weight · windows of the image + bias); without a bias where that is nullptr.
  void convolve(const T* image, const T* bias, Activation f, T* y);
  /// y (maps, windows) += weight · windows of the image
  void add_convolved(const T* image, T* y);

 private:
  void multiply(const T* image);

  Windows windows_, phase_;
  std::int64_t channels_, maps_;
  std::int64_t places_;  // for a window, and some that fill up a sliver
  std::vector<std::int64_t>
      offsets_;  // of the pixel of a tap from that of its window, channel by channel
  Tensor phases_, weight_, results_;
};

/// The gradient of a weight (maps, channels, taps), of images in which the channels of a pixel lie beside each
/// other: dw (+)= Σ over images of dz · columnsᵀ, with the bits of im2col() and gemm().
template <class T>
class DirectWeightGradient {
 public:
  /// Whether channels fill vectors.
  static bool suits(std::int64_t channels);

  DirectWeightGradient(const Windows& windows, std::int64_t channels, std::int64_t maps);

  /// Begins with what has been added up before.
  void begin_with(const T* dw);
  /// Adds that of an image and of dz (maps, windows).
  void add(const T* image, const T* dz);
  void store(T* dw) const;

 private:
  template <class F>
  void for_each(F f) const;

  Windows windows_;
  std::int64_t channels_, maps_, lanes_;
  std::vector<std::int64_t> taps_, places_;  // offsets in an image, of taps and of windows
  Tensor padded_, image_, gradient_, sums_;
};

}  // namespace lockstep::kernels
