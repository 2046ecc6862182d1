#include "tensor/phased_gradient.hpp"

#include <algorithm>
#include <utility>

namespace lockstep::kernels {

AxisPhase::AxisPhase(const WindowAxis& axis, std::int64_t r) {
  // Pixel i of the phase is seen by tap k in window i - shift(k).
  const auto shift = [&axis](std::int64_t tap) { return tap * axis.dilation / axis.stride; };
  begin = std::max<std::int64_t>(0, axis.padding - r + axis.stride - 1) / axis.stride;
  first = begin * axis.stride + r - axis.padding;
  count = std::max<std::int64_t>(0, axis.extent - first + axis.stride - 1) / axis.stride;
  for (std::int64_t tap = axis.kernel; tap-- > 0;) {
    if (tap * axis.dilation % axis.stride == r) taps.push_back(tap);
  }
  if (taps.empty()) return;
  windows.extent = axis.count();
  windows.kernel = std::ssize(taps);
  windows.padding = shift(taps[0]);
  if (taps.size() > 1) windows.dilation = shift(taps[0]) - shift(taps[1]);
}

std::int64_t AxisPhase::seen() const {
  return taps.empty() ? 0 : std::clamp<std::int64_t>(windows.count() - begin, 0, count);
}

template <class T>
PhasedImageGradient<T>::PhasedImageGradient(const Windows& windows, std::int64_t channels,
                                            std::int64_t maps)
    : windows_(windows), channels_(channels), maps_(maps) {
  const auto& [deep, vertical, horizontal] = windows;
  std::int64_t most_results = 0;
  for (std::int64_t z = 0; z < deep.stride; ++z) {
    for (std::int64_t y = 0; y < vertical.stride; ++y) {
      for (std::int64_t x = 0; x < horizontal.stride; ++x) {
        Phase phase{{AxisPhase(deep, z), AxisPhase(vertical, y), AxisPhase(horizontal, x)}, {}};
        const auto& axes = phase.axes;
        if (axes[0].seen() > 0 && axes[1].seen() > 0 && axes[2].seen() > 0) {
          const Windows turned{axes[0].windows, axes[1].windows, axes[2].windows};
          phase.convolution.emplace(turned, maps, channels);
          most_results = std::max(most_results, turned.count());
        }
        phases_.push_back(std::move(phase));
      }
    }
  }
  weight_ = Tensor::empty({maps * channels * windows.taps()}, dtype_of<T>);
  gradient_ = Tensor::empty({channels * most_results}, dtype_of<T>);
}

template <class T>
void PhasedImageGradient<T>::set_weight(const T* weight) {
  const std::int64_t taps = windows_.taps();
  for (Phase& phase : phases_) {
    if (!phase.convolution) continue;
    T* to = weight_.data<T>();
    for (std::int64_t channel = 0; channel < channels_; ++channel) {
      for (std::int64_t map = 0; map < maps_; ++map) {
        const T* const from = weight + (map * channels_ + channel) * taps;
        for (const std::int64_t z : phase.axes[0].taps) {
          for (const std::int64_t y : phase.axes[1].taps) {
            const std::int64_t row =
                (z * windows_.vertical.kernel + y) * windows_.horizontal.kernel;
            for (const std::int64_t x : phase.axes[2].taps) *to++ = from[row + x];
          }
        }
      }
    }
    phase.convolution->set_weight(std::as_const(weight_).data<T>());
  }
}

template <class T>
void PhasedImageGradient<T>::add(const T* dz, T* dx, bool accumulate) {
  for (Phase& phase : phases_) {
    if (phase.convolution) {
      phase.convolution->convolve(dz, nullptr, Activation::none, gradient_.data<T>());
    }
    scatter(phase, dx, accumulate);
  }
}

// What has no window is 0.
template <class T>
void PhasedImageGradient<T>::scatter(const Phase& phase, T* dx, bool accumulate) const {
  const auto& [deep, vertical, horizontal] = windows_;
  const auto& [layers, rows, pixels] = phase.axes;
  const std::int64_t stride = horizontal.stride;
  const std::int64_t seen = phase.convolution ? pixels.seen() : 0;
  const T* const gradient = gradient_.data<T>();
  for (std::int64_t channel = 0; channel < channels_; ++channel) {
    for (std::int64_t z = 0; z < layers.count; ++z) {
      for (std::int64_t y = 0; y < rows.count; ++y) {
        const std::int64_t layer = channel * deep.extent + layers.first + z * deep.stride;
        const std::int64_t row = layer * vertical.extent + rows.first + y * vertical.stride;
        T* const to = dx + row * horizontal.extent + pixels.first;
        const std::int64_t inside = z < layers.seen() && y < rows.seen() ? seen : 0;
        const std::int64_t layer_of_windows = channel * layers.windows.count() + layers.begin + z;
        const T* const from =
            gradient +
            (layer_of_windows * rows.windows.count() + rows.begin + y) * pixels.windows.count() +
            pixels.begin;
        for (std::int64_t i = 0; i < inside; ++i) {
          to[i * stride] = accumulate ? to[i * stride] + from[i] : from[i];
        }
        for (std::int64_t i = inside; i < pixels.count && !accumulate; ++i) to[i * stride] = 0;
      }
    }
  }
}

template class PhasedImageGradient<float>;
template class PhasedImageGradient<double>;

}  // namespace lockstep::kernels
