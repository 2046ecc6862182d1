#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "lockstep/tensor/tensor.hpp"
#include "tensor/direct_convolution.hpp"
#include "tensor/windows.hpp"

namespace lockstep::kernels {

/// Along one axis, the pixels of an image that are r more than a multiple of the stride in the padded image: the same taps see
/// all of them.
struct AxisPhase {
  std::int64_t first, count;       ///< pixels of the image, `stride` apart
  std::vector<std::int64_t> taps;  ///< in the order of those of `windows`
  /// Those in the result by which the gradient of these pixels is a convolution with stride 1, if there are taps; the first
  /// pixel has window `begin`.
  WindowAxis windows;
  std::int64_t begin;

  AxisPhase(const WindowAxis& axis, std::int64_t r);

  /// Of the pixels, the first ones that have windows.
  std::int64_t seen() const;
};

/// The gradient of images (channels, depth, height, width) of a convolution with strides, by that of each phase. For T = float
/// and double.
template <class T>
class PhasedImageGradient {
 public:
  /// Padding that cuts nothing off.
  PhasedImageGradient(const Windows& windows, std::int64_t channels, std::int64_t maps);

  /// Of (maps, channels, taps).
  void set_weight(const T* weight);

  /// dx (+)= that of dz (maps, windows)
  void add(const T* dz, T* dx, bool accumulate);

 private:
  struct Phase {
    std::array<AxisPhase, 3> axes;
    std::optional<DirectConvolution<T>> convolution;  // of the result, if there are taps
  };

  void scatter(const Phase& phase, T* dx, bool accumulate) const;

  Windows windows_;
  std::int64_t channels_, maps_;
  std::vector<Phase> phases_;
  Tensor weight_, gradient_;  // of one phase
};

}  // namespace lockstep::kernels
