#pragma once

#include "lockstep/tensor/activation.hpp"
#include "lockstep/tensor/tensor.hpp"
#include "tensor/windows.hpp"

namespace lockstep::kernels {

/// Whether that takes less time than a DirectConvolution: kernels of 3 × 3 with stride 1 on flat images, and channels and
/// maps enough that the products outweigh what goes before and after them.
bool suits_winograd(const Windows& windows, std::int64_t channels, std::int64_t maps);

/// Convolutions by 16 products for 2 × 2 windows at a time, where there are 36 otherwise: F(2×2, 3×3) of Lavin and Gray,
/// "Fast algorithms for convolutional neural networks", arXiv:1509.09308. The error is that of a few more additions. A number
/// that is not finite makes the other windows of its square NaN as well. For T = float and double.
template <class T>
class WinogradConvolution {
 public:
  WinogradConvolution(const Windows& windows, std::int64_t channels, std::int64_t maps);

  /// Of (maps, channels, 3, 3).
  void set_weight(const T* weight);

  /// y (maps, windows) = f(weight · windows of the image + bias); without a bias where that is nullptr.
  void convolve(const T* image, const T* bias, Activation f, T* y);
  /// y (maps, windows) += weight · windows of the image
  void add_convolved(const T* image, T* y);

 private:
  void multiply(const T* image);
  void split(const T* image);
  void transform_image(std::int64_t square);
  void multiply_squares();
  void transform_products(std::int64_t square);
  template <class Of>
  void join(T* y, Of of);

  Windows windows_;
  std::int64_t channels_, maps_;
  std::int64_t width_;          // squares of a row of them, and some that fill it up
  std::int64_t squares_;        // of all rows, and some that fill up a block
  std::int64_t block_;          // squares at a time
  std::int64_t phase_;          // numbers of one
  std::int64_t image_product_;  // numbers of the image for one product, and from there to the next
  std::int64_t map_product_;
  Tensor phases_, image_, weight_, products_, quarters_;
};

/// Whether a WinogradWeightGradient takes less time than a DirectWeightGradient: where those convolutions do, unless there
/// are so many sums that they leave the cache.
bool suits_winograd_gradient(const Windows& windows, std::int64_t channels, std::int64_t maps);

/// The gradient of a weight (maps, channels, 3, 3), by 16 products for 2 × 2 windows as well: the derivative of that algorithm
/// by its weight, dw (+)= Gᵀ · (Σ over images and squares of (A · dz · Aᵀ) ⊙ (Bᵀ · d · B)) · G. The error is that of a few more
/// additions. A number that is not finite makes all taps of its map and channel NaN. For T = float and double.
template <class T>
class WinogradWeightGradient {
 public:
  WinogradWeightGradient(const Windows& windows, std::int64_t channels, std::int64_t maps);

  /// Adds that of an image and of dz (maps, windows).
  void add(const T* image, const T* dz);
  void store(T* dw, bool accumulate) const;

 private:
  void transform_pixels_of(std::int64_t first, std::int64_t count, const T* pixels);
  void transform_gradients(std::int64_t first, std::int64_t count);

  Windows windows_;
  std::int64_t channels_, maps_;
  std::int64_t channel_lanes_, map_lanes_;    // that fill slivers
  std::int64_t width_, squares_;              // squares of a row, and of all rows
  std::int64_t block_;                        // squares at a time
  std::int64_t pixel_product_, map_product_;  // numbers of a block for one product, and to the next
  std::int64_t sliver_;                       // numbers of an image in one
  Tensor padded_, image_, gradient_;          // the latter two in slivers, by pixels or windows
  Tensor pixels_, gradients_;                 // of a block, (products, squares, lanes)
  Tensor sums_;                               // (products, maps, channel lanes)
};

}  // namespace lockstep::kernels
