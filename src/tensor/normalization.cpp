#include "tensor/normalization.hpp"

#include <algorithm>
#include <array>

namespace lockstep::kernels {
namespace {

// In both functions below, of(channel) is a function of the index of a number, with the channel's own
// numbers at hand. With a run of one, channels are neighbours, and else the numbers of one channel:
// neighbours are what the inner loops run over.

// sums[channel] = Σ f(i) over the numbers i of the channel, with f = of(channel).
template <class F>
void sum_each(const Channels& shape, double* sums, F of) {
  if (shape.run == 1) {
    std::fill_n(sums, shape.channels, 0.0);
    for (std::int64_t sample = 0; sample < shape.samples; ++sample) {
      const std::int64_t first = sample * shape.channels;
      for (std::int64_t channel = 0; channel < shape.channels; ++channel) {
        sums[channel] += of(channel)(first + channel);
      }
    }
    return;
  }
  constexpr std::int64_t lanes = 16;
  for (std::int64_t channel = 0; channel < shape.channels; ++channel) {
    const auto f = of(channel);
    std::array<double, lanes> partial{};
    double total = 0;
    for (std::int64_t sample = 0; sample < shape.samples; ++sample) {
      std::int64_t i = (sample * shape.channels + channel) * shape.run;
      const std::int64_t end = i + shape.run;
      for (; i + lanes <= end; i += lanes) {
        for (std::int64_t lane = 0; lane < lanes; ++lane) {
          partial[static_cast<std::size_t>(lane)] += f(i + lane);
        }
      }
      for (; i < end; ++i) total += f(i);
    }
    for (const double value : partial) total += value;
    sums[channel] = total;
  }
}

// use(i, f(i)) for the numbers i of each channel, with f = of(channel).
template <class F, class Use>
void for_each(const Channels& shape, F of, Use use) {
  std::int64_t i = 0;
  for (std::int64_t sample = 0; sample < shape.samples; ++sample) {
    if (shape.run == 1) {
      for (std::int64_t channel = 0; channel < shape.channels; ++channel) {
        use(i + channel, of(channel)(i + channel));
      }
      i += shape.channels;
      continue;
    }
    for (std::int64_t channel = 0; channel < shape.channels; ++channel) {
      const auto f = of(channel);
      for (const std::int64_t end = i + shape.run; i < end; ++i) use(i, f(i));
    }
  }
}

}  // namespace

template <class T>
void sum_channels(const Channels& shape, const T* x, double* sums) {
  sum_each(shape, sums,
           [x](std::int64_t) { return [x](std::int64_t i) { return static_cast<double>(x[i]); }; });
}

template <class T>
void sum_channel_squares(const Channels& shape, const T* x, const double* mean, double* sums) {
  sum_each(shape, sums, [x, mean](std::int64_t channel) {
    return [x, m = mean[channel]](std::int64_t i) {
      const double distance = static_cast<double>(x[i]) - m;
      return distance * distance;
    };
  });
}

template <class T>
void sum_channel_products(const Channels& shape, const T* x, const double* mean, const T* dy,
                          double* sums) {
  sum_each(shape, sums, [x, mean, dy](std::int64_t channel) {
    return [x, m = mean[channel], dy](std::int64_t i) {
      return static_cast<double>(dy[i]) * (static_cast<double>(x[i]) - m);
    };
  });
}

template <class T>
void map_channels(const Channels& shape, const T* x, const ChannelMap<T>& map, T* y) {
  const auto of = [x, map](std::int64_t channel) {
    return [x, center = map.center[channel], factor = map.factor[channel],
            offset = map.offset[channel]](std::int64_t i) {
      return factor * (x[i] - center) + offset;
    };
  };
  for_each(shape, of, [y](std::int64_t i, T value) { y[i] = value; });
}

template <class T>
void map_channel_gradients(const Channels& shape, const T* x, const ChannelMap<T>& map, const T* dy,
                           const T* slope, T* dx, bool accumulate) {
  const auto of = [x, map, dy, slope](std::int64_t channel) {
    return [x, center = map.center[channel], factor = map.factor[channel],
            offset = map.offset[channel], dy, a = slope[channel]](std::int64_t i) {
      return a * dy[i] + (factor * (x[i] - center) + offset);
    };
  };
  if (accumulate) {
    for_each(shape, of, [dx](std::int64_t i, T value) { dx[i] += value; });
  } else {
    for_each(shape, of, [dx](std::int64_t i, T value) { dx[i] = value; });
  }
}

#define LOCKSTEP_INSTANTIATE(T)                                                             \
  template void sum_channels<T>(const Channels&, const T*, double*);                        \
  template void sum_channel_squares<T>(const Channels&, const T*, const double*, double*);  \
  template void sum_channel_products<T>(const Channels&, const T*, const double*, const T*, \
                                        double*);                                           \
  template void map_channels<T>(const Channels&, const T*, const ChannelMap<T>&, T*);       \
  template void map_channel_gradients<T>(const Channels&, const T*, const ChannelMap<T>&,   \
                                         const T*, const T*, T*, bool);
LOCKSTEP_INSTANTIATE(float)
LOCKSTEP_INSTANTIATE(double)
#undef LOCKSTEP_INSTANTIATE

}  // namespace lockstep::kernels
