#pragma once

#include <cstdint>

#include "tensor/windows.hpp"

// Numeric kernels on images of (channels, depth, height, width), for T = float and double.
namespace lockstep::kernels {

/// maxima[channel][window] and the pixel of each, in [0, depth · height · width): the first of equal ones, the
/// last NaN. Every window must see a pixel of the image, which is not padded.
template <class T>
void max_pool(const Windows& windows, std::int64_t channels, const T* image, T* maxima,
              std::int32_t* pixels);

/// The adjoint of max_pool: image[channel][pixels[channel][window]] += maxima[channel][window], of
/// zeros unless it accumulates.
template <class T>
void max_unpool(const Windows& windows, std::int64_t channels, const T* maxima,
                const std::int32_t* pixels, T* image, bool accumulate);

/// means[channel][window]: of all taps, of which those outside see zeros, or of those that see the image.
template <class T>
void average_pool(const Windows& windows, std::int64_t channels, bool count_padding, const T* image,
                  T* means);

/// The adjoint of average_pool: adds to the image what each pixel counts in means.
template <class T>
void average_unpool(const Windows& windows, std::int64_t channels, bool count_padding,
                    const T* means, T* image);

}  // namespace lockstep::kernels
