#pragma once

#include <cstdint>

// Numeric kernels on the numbers of each channel, for T = float and double. Sums are made in double, in
// an order that follows from the shape alone; those of floats have the bits of the same numbers in
// double.
namespace lockstep::kernels {

/// The numbers x[sample][channel][i], i < run.
struct Channels {
  std::int64_t samples, channels, run;

  /// Numbers of one channel.
  std::int64_t count() const { return samples * run; }
};

/// sums[channel] = Σ x
template <class T>
void sum_channels(const Channels& shape, const T* x, double* sums);

/// sums[channel] = Σ (x - mean[channel])²
template <class T>
void sum_channel_squares(const Channels& shape, const T* x, const double* mean, double* sums);

/// sums[channel] = Σ dy · (x - mean[channel])
template <class T>
void sum_channel_products(const Channels& shape, const T* x, const double* mean, const T* dy,
                          double* sums);

/// factor[channel] · (x - center[channel]) + offset[channel]
template <class T>
struct ChannelMap {
  const T *center, *factor, *offset;
};

/// y = map(x)
template <class T>
void map_channels(const Channels& shape, const T* x, const ChannelMap<T>& map, T* y);

/// dx (+)= slope[channel] · dy + map(x)
template <class T>
void map_channel_gradients(const Channels& shape, const T* x, const ChannelMap<T>& map, const T* dy,
                           const T* slope, T* dx, bool accumulate);

}  // namespace lockstep::kernels
