#include "tensor/direct_convolution.hpp"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "tensor/convolution.hpp"
#include "tensor/gemm.hpp"

namespace lockstep::kernels {
namespace {

// tap_offsets() in an image that is cut into phases, one after the other.
std::vector<std::int64_t> phased_tap_offsets(const Windows& windows) {
  const auto& [deep, vertical, horizontal] = windows;
  const Windows phase = windows.phase();
  std::vector<std::int64_t> offsets;
  for (std::int64_t z = 0; z < deep.reach(); z += deep.dilation) {
    for (std::int64_t y = 0; y < vertical.reach(); y += vertical.dilation) {
      for (std::int64_t x = 0; x < horizontal.reach(); x += horizontal.dilation) {
        const std::int64_t which =
            (z % deep.stride * vertical.stride + y % vertical.stride) * horizontal.stride +
            x % horizontal.stride;
        const std::int64_t row = z / deep.stride * phase.vertical.extent + y / vertical.stride;
        offsets.push_back(which * phase.pixels() + row * phase.horizontal.extent +
                          x / horizontal.stride);
      }
    }
  }
  return offsets;
}

// Of the pixels of a padded image that windows begin at.
std::vector<std::int64_t> window_offsets(const Windows& windows) {
  const auto& [deep, vertical, horizontal] = windows;
  std::vector<std::int64_t> offsets;
  for (std::int64_t z = 0; z < deep.count(); ++z) {
    for (std::int64_t y = 0; y < vertical.count(); ++y) {
      const std::int64_t row = z * deep.stride * vertical.padded() + y * vertical.stride;
      for (std::int64_t x = 0; x < horizontal.count(); ++x) {
        offsets.push_back(row * horizontal.padded() + x * horizontal.stride);
      }
    }
  }
  return offsets;
}

// From the pixel that the first window begins at to that of the last one.
std::int64_t span_of(const Windows& windows) {
  const auto& [deep, vertical, horizontal] = windows;
  return ((deep.count() - 1) * vertical.padded() + vertical.count() - 1) * horizontal.padded() +
         horizontal.count();
}

// With what is read beyond their end.
template <class T>
Tensor zeros(std::int64_t size) {
  return Tensor::zeros({size + tiles<T>().columns}, dtype_of<T>);
}

template <class T>
Tensor memory(std::int64_t size) {
  return Tensor::empty({size}, dtype_of<T>);
}

// Every stride-th pixel of a row, from the first of a phase on.
template <class T, class Stride>
void copy_phase(const T* row, const WindowAxis& axis, std::int64_t phase, Stride stride,
                std::int64_t room, T* to) {
  std::int64_t x = (phase - axis.padding % stride + stride) % stride;
  std::int64_t i = (x + axis.padding) / stride;
  for (; x < axis.extent && i < room; x += stride, ++i) to[i] = row[x];
}

// pad() into phases.
template <class T>
void split(const Windows& windows, std::int64_t channels, const T* image, T* phases) {
  if (windows.strideless()) return pad(windows, channels, image, phases);
  const WindowAxis &deep = windows.deep, &vertical = windows.vertical,
                   &horizontal = windows.horizontal;
  const Windows phase = windows.phase();
  for (std::int64_t channel = 0; channel < channels; ++channel) {
    for (std::int64_t z = deep.padding; z < deep.padding + deep.extent; ++z) {
      for (std::int64_t y = vertical.padding; y < vertical.padding + vertical.extent; ++y) {
        const std::int64_t layer = z / deep.stride, row = y / vertical.stride;
        const std::int64_t which = z % deep.stride * vertical.stride + y % vertical.stride;
        T* to = phases + (channel * windows.phases() + which * horizontal.stride) * phase.pixels() +
                (layer * phase.vertical.extent + row) * phase.horizontal.extent;
        const bool seen = layer < phase.deep.extent && row < phase.vertical.extent;
        for (std::int64_t x = 0; x < horizontal.stride && seen; ++x, to += phase.pixels()) {
          const std::int64_t room = phase.horizontal.extent;
          if (horizontal.stride == 2) {
            copy_phase(image, horizontal, x, std::integral_constant<std::int64_t, 2>(), room, to);
          } else {
            copy_phase(image, horizontal, x, horizontal.stride, room, to);
          }
        }
        image += horizontal.extent;
      }
    }
  }
}

// C [+]= A · B of these packed blocks, and of the rows of B that begin at these offsets, of one sliver.
template <class T>
void multiply_blocks(std::int64_t maps, std::int64_t width, const T* packed,
                     const std::vector<std::int64_t>& offsets, const T* b, T* c,
                     std::int64_t leading, bool add) {
  const auto k = static_cast<std::int64_t>(offsets.size());
  const std::int64_t longest = block_length(k), rows = whole(maps, tiles<T>().rows);
  for (std::int64_t l = 0; l < k; l += longest) {
    tiles<T>().multiply_rows(maps, width, std::min(longest, k - l), packed + rows * l, b,
                             offsets.data() + l, {c, leading, 1, add || l > 0});
  }
}

}  // namespace

bool suits_direct(const Windows& windows) {
  constexpr std::int64_t longest_stride = 8;
  const auto& [deep, vertical, horizontal] = windows;
  for (const WindowAxis* axis : {&deep, &vertical, &horizontal}) {
    if (axis->stride > longest_stride || axis->padding < 0) return false;
  }
  return 2 * span_of(windows.phase()) <= 3 * windows.count();
}

Windows adjoint(const Windows& windows) {
  const auto of_axis = [](WindowAxis axis) {
    axis.extent = axis.count();
    axis.padding = axis.reach() - 1 - axis.padding;
    return axis;
  };
  return {of_axis(windows.deep), of_axis(windows.vertical), of_axis(windows.horizontal)};
}

template <class T>
DirectConvolution<T>::DirectConvolution(const Windows& windows, std::int64_t channels,
                                        std::int64_t maps)
    : windows_(windows),
      phase_(windows.phase()),
      channels_(channels),
      maps_(maps),
      places_(whole(span_of(phase_), tiles<T>().columns)),
      phases_(zeros<T>(Shape{channels, windows.phases(), phase_.pixels()}.size())),
      weight_(memory<T>(whole(maps, tiles<T>().rows) * channels * windows.taps())),
      results_(memory<T>(maps * places_)) {
  const std::vector<std::int64_t> taps = phased_tap_offsets(windows);
  for (std::int64_t channel = 0; channel < channels; ++channel) {
    for (const std::int64_t offset : taps) {
      offsets_.push_back(channel * windows.phases() * phase_.pixels() + offset);
    }
  }
}

template <class T>
void DirectConvolution<T>::set_weight(const T* weight) {
  pack_blocks(maps_, channels_ * windows_.taps(), weight, weight_.data<T>());
}

template <class T>
void DirectConvolution<T>::convolve(const T* image, const T* bias, Activation f, T* y) {
  multiply(image);
  take_windows(phase_, maps_, std::as_const(results_).data<T>(), places_, bias, f, y);
}

template <class T>
void DirectConvolution<T>::add_convolved(const T* image, T* y) {
  multiply(image);
  add_windows(phase_, maps_, std::as_const(results_).data<T>(), places_, y);
}

template <class T>
void DirectConvolution<T>::multiply(const T* image) {
  const T* const phases = std::as_const(phases_).data<T>();
  split(windows_, channels_, image, phases_.data<T>());
  const std::int64_t sliver = tiles<T>().columns;
  for (std::int64_t place = 0; place < places_; place += sliver) {
    multiply_blocks<T>(maps_, sliver, weight_.data<T>(), offsets_, phases + place,
                       results_.data<T>() + place, places_, false);
  }
}

template <class T>
bool DirectWeightGradient<T>::suits(std::int64_t channels) {
  return 4 * channels >= tiles<T>().columns;
}

template <class T>
DirectWeightGradient<T>::DirectWeightGradient(const Windows& windows, std::int64_t channels,
                                              std::int64_t maps)
    : windows_(windows),
      channels_(channels),
      maps_(maps),
      lanes_(whole(channels, tiles<T>().columns)),
      taps_(tap_offsets(windows)),
      places_(window_offsets(windows)),
      padded_(zeros<T>(Shape{channels, windows.padded_pixels()}.size())),
      image_(memory<T>(lanes_ * windows.padded_pixels())),
      gradient_(memory<T>(whole(maps, tiles<T>().rows) * windows.count())),
      sums_(Tensor::zeros({windows.taps() * maps * lanes_}, dtype_of<T>)) {
  for (std::int64_t& place : places_) place *= tiles<T>().columns;
}

// Calls f(element of dw, element of the sums, which are of (taps, maps, lanes)).
template <class T>
template <class F>
void DirectWeightGradient<T>::for_each(F f) const {
  const std::int64_t taps = windows_.taps();
  std::int64_t element = 0;
  for (std::int64_t map = 0; map < maps_; ++map) {
    for (std::int64_t channel = 0; channel < channels_; ++channel) {
      for (std::int64_t tap = 0; tap < taps; ++tap) {
        f(element++, (tap * maps_ + map) * lanes_ + channel);
      }
    }
  }
}

template <class T>
void DirectWeightGradient<T>::begin_with(const T* dw) {
  for_each([dw, sums = sums_.data<T>()](std::int64_t i, std::int64_t j) { sums[j] = dw[i]; });
}

template <class T>
void DirectWeightGradient<T>::store(T* dw) const {
  for_each([dw, sums = sums_.data<T>()](std::int64_t i, std::int64_t j) { dw[i] = sums[j]; });
}

template <class T>
void DirectWeightGradient<T>::add(const T* image, const T* dz) {
  const std::int64_t sliver = tiles<T>().columns, pixels = windows_.padded_pixels();
  pad(windows_, channels_, image, padded_.data<T>());
  tiles<T>().pack_columns({padded_.data<T>(), pixels, true}, channels_, pixels, image_.data<T>());
  pack_blocks(maps_, windows_.count(), dz, gradient_.data<T>());
  for (std::int64_t lane = 0; lane < lanes_; lane += sliver) {
    const std::int64_t width = channels_ - lane > sliver / 2 ? sliver : sliver / 2;
    T* sums = sums_.data<T>() + lane;
    for (const std::int64_t tap : taps_) {
      multiply_blocks<T>(maps_, width, gradient_.data<T>(), places_,
                         image_.data<T>() + lane * pixels + tap * sliver, sums, lanes_, true);
      sums += maps_ * lanes_;
    }
  }
}

template class DirectConvolution<float>;
template class DirectConvolution<double>;
template class DirectWeightGradient<float>;
template class DirectWeightGradient<double>;

}  // namespace lockstep::kernels
