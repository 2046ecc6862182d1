#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "lockstep/tensor/tensor.hpp"
#include "tensor/convolution.hpp"
#include "tensor/convolve.hpp"
#include "tensor/gemm.hpp"
#include "tensor/kernels.hpp"

// What convolutions and their adjoints are made of where nothing faster suits them.
namespace lockstep::kernels {

/// The columns of one image of a convolution, and the products with them.
template <class T>
class Columns {
 public:
  explicit Columns(const Convolution& of)
      : of_(of),
        columns_(Tensor::empty({Shape{of.groups * of.taps(), of.windows.count()}.size() + slack},
                               dtype_of<T>)),
        padded_(Tensor::zeros({Shape{of.channels, of.windows.padded_pixels()}.size() + slack},
                              dtype_of<T>)) {}

  // Takes those of an image. Only fold() spoils the padding for that.
  void unfold(const T* image) {
    pad(of_.windows, of_.channels, image, padded_.data<T>());
    im2col(of_.windows, of_.channels, std::as_const(padded_).data<T>(), columns_.data<T>());
  }
  // image (+)= what the columns come from.
  void fold(T* image, bool accumulate) {
    padded_.fill(0);
    col2im(of_.windows, of_.channels, std::as_const(columns_).data<T>(), padded_.data<T>());
    crop(of_.windows, of_.channels, std::as_const(padded_).data<T>(), image, accumulate);
  }

  // result (+)= weight · columns
  void multiply(const T* weight, T* result, bool accumulate) {
    for_each_group(weight, result, [&](const T* w, T* columns, T* r) {
      gemm(Transpose::no, Transpose::no, maps(), of_.windows.count(), of_.taps(), w,
           std::as_const(columns), r, accumulate);
    });
  }
  // columns = weightᵀ · result
  void multiply_transposed(const T* weight, const T* result) {
    for_each_group(weight, result, [&](const T* w, T* columns, const T* r) {
      gemm(Transpose::yes, Transpose::no, of_.taps(), of_.windows.count(), maps(), w, r, columns,
           false);
    });
  }
  // weight += result · columnsᵀ
  void add_products(const T* result, T* weight) {
    for_each_group(weight, result, [&](T* w, T* columns, const T* r) {
      gemm(Transpose::no, Transpose::yes, maps(), of_.taps(), of_.windows.count(), r,
           std::as_const(columns), w, true);
    });
  }

 private:
  std::int64_t maps() const { return of_.maps / of_.groups; }

  template <class Weight, class Result, class F>
  void for_each_group(Weight* weight, Result* result, F f) {
    T* columns = columns_.data<T>();
    for (std::int64_t group = 0; group < of_.groups; ++group) {
      f(weight, columns, result);
      weight += maps() * of_.taps();
      columns += of_.taps() * of_.windows.count();
      result += maps() * of_.windows.count();
    }
  }

  Convolution of_;
  Tensor columns_, padded_;
};

/// bias[map] (+)= the sum of each map over samples and windows.
template <class T>
class BiasGradient {
 public:
  BiasGradient(GradientTarget<T> target, std::int64_t maps, std::int64_t count)
      : target_(target),
        sums_(target.data == nullptr ? 0 : static_cast<std::size_t>(maps)),
        count_(count) {
    if (target.accumulate) std::copy_n(target.data, sums_.size(), sums_.begin());
  }
  void add(const T* maps) {
    for (double& of_map : sums_) {
      of_map += sum(count_, maps);
      maps += count_;
    }
  }
  void store() const {
    std::transform(sums_.begin(), sums_.end(), target_.data,
                   [](double of_map) { return static_cast<T>(of_map); });
  }

 private:
  GradientTarget<T> target_;
  std::vector<double> sums_;
  std::int64_t count_;  // of the numbers of a map
};

}  // namespace lockstep::kernels
