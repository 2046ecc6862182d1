#pragma once

#include <array>
#include <cstdint>

#include "lockstep/tensor/activation.hpp"
#include "tensor/windows.hpp"

namespace lockstep::kernels {

/// A convolution, or its adjoint: of images of `channels` with a weight (maps, channels / groups · taps) to maps that
/// have a number for each window. Samples are taken one after another, so that the bits of one do not depend on
/// the others.
struct Convolution {
  Windows windows;
  std::int64_t samples, channels, maps, groups;

  std::int64_t taps() const { return channels / groups * windows.taps(); }  ///< of a map
  std::int64_t image() const { return channels * windows.pixels(); }
  std::int64_t result() const { return maps * windows.count(); }
};

/// Where a gradient goes that is wanted, or is added.
template <class T>
struct GradientTarget {
  T* data = nullptr;
  bool accumulate = false;
};

/// y = f(weight · windows of x + bias); without a bias where that is nullptr.
template <class T>
void convolve(const Convolution& of, const T* x, const T* weight, const T* bias, Activation f,
              T* y);

/// The gradients of x, weight and bias. y may be nullptr where f is none.
template <class T>
void convolve_backward(const Convolution& of, const T* x, const T* weight, const T* y, const T* dy,
                       Activation f, const std::array<GradientTarget<T>, 3>& targets);

/// Whether the following two can do it: without groups, and with windows of the pooling that do not overlap.
bool suits_pooling(const Convolution& of, const Windows& pooling);

/// max_pool of each map of y as convolve() gives it, to the bit, where there is memory of one sample of y at a time.
template <class T>
void convolve_and_pool(const Convolution& of, const Windows& pooling, const T* x, const T* weight,
                       const T* bias, Activation f, T* maxima, std::int32_t* pixels);

/// The gradients of x, weight and bias, from that of the maxima.
template <class T>
void convolve_and_pool_backward(const Convolution& of, const Windows& pooling, const T* x,
                                const T* weight, const T* maxima, const std::int32_t* pixels,
                                const T* gradient, Activation f,
                                const std::array<GradientTarget<T>, 3>& targets);

/// y = the images of weightᵀ · x, plus bias
template <class T>
void convolve_transposed(const Convolution& of, const T* x, const T* weight, const T* bias, T* y);

/// The gradients of x, weight and bias.
template <class T>
void convolve_transposed_backward(const Convolution& of, const T* x, const T* weight, const T* dy,
                                  const std::array<GradientTarget<T>, 3>& targets);

}  // namespace lockstep::kernels
