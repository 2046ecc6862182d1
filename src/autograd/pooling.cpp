#include "lockstep/autograd/pooling.hpp"

#include <fmt/format.h>

#include <limits>
#include <memory>

#include "autograd/max_pooling.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/tensor/memory_pool.hpp"
#include "tensor/dispatch.hpp"
#include "tensor/kernels.hpp"
#include "tensor/pooling.hpp"

namespace lockstep {

using autograd::GradientSlot;
using autograd::record;
using autograd::WindowOptions;
using kernels::Windows;
using Slots = std::span<GradientSlot>;

autograd::Pooling autograd::pooling(const char* what, const Shape& x,
                                    const WindowOptions& options) {
  check_pooling(what, options);
  const Windows windows = windows_in(what, x, options);
  return {windows, x[0] * x[1], shape_of(x[0], x[1], options.axes, counts(windows))};
}

std::shared_ptr<std::int32_t[]> autograd::pixels_of_maxima(const char* what, const Shape& x,
                                                           const Pooling& pooling) {
  constexpr std::int64_t most_pixels = std::numeric_limits<std::int32_t>::max();
  if (pooling.windows.pixels() > most_pixels) {
    throw ShapeError(fmt::format("{}: expected images of at most {} pixels, found shape {}", what,
                                 most_pixels, to_string(x)));
  }
  return std::allocate_shared_for_overwrite<std::int32_t[]>(
      memory_pool::Allocator<std::int32_t>(), static_cast<std::size_t>(pooling.result.size()));
}

namespace {

Variable max_pool(const char* what, const Variable& x, const WindowOptions& options) {
  const auto pooling = autograd::pooling(what, x.shape(), options);
  const auto [windows, channels, shape] = pooling;
  Tensor result = Tensor::empty(shape, x.dtype());
  const auto pixels = autograd::pixels_of_maxima(what, x.shape(), pooling);
  const auto pool = [&, windows = windows, channels = channels]<class T>() {
    kernels::max_pool(windows, channels, x.value().data<T>(), result.data<T>(), pixels.get());
  };
  dispatch_kernel(x.dtype(), pool);
  return record(
      result, {x},
      [windows = windows, channels = channels, pixels](const Tensor& gradient, Slots slots) {
        slots[0].receive([&](Tensor& target, bool accumulate) {
          dispatch_kernel(gradient.dtype(), [&]<class T>() {
            kernels::max_unpool(windows, channels, gradient.data<T>(), pixels.get(),
                                target.data<T>(), accumulate);
          });
        });
      });
}

Variable avg_pool(const char* what, const Variable& x, const WindowOptions& options,
                  bool count_padding) {
  const auto [windows, channels, shape] = autograd::pooling(what, x.shape(), options);
  Tensor result = Tensor::empty(shape, x.dtype());
  const auto pool = [&, windows = windows, channels = channels]<class T>() {
    kernels::average_pool(windows, channels, count_padding, x.value().data<T>(), result.data<T>());
  };
  dispatch_kernel(x.dtype(), pool);
  return record(
      result, {x},
      [windows = windows, channels = channels, count_padding](const Tensor& gradient, Slots slots) {
        slots[0].receive([&](Tensor& target, bool accumulate) {
          if (!accumulate) target.fill(0);
          dispatch_kernel(gradient.dtype(), [&]<class T>() {
            kernels::average_unpool(windows, channels, count_padding, gradient.data<T>(),
                                    target.data<T>());
          });
        });
      });
}

}  // namespace

Variable max_pool1d(const Variable& x, std::int64_t kernel,
                    const PoolingOptions<std::int64_t>& options) {
  return max_pool("max_pool1d", x, autograd::pooling_options(kernel, options));
}
Variable max_pool2d(const Variable& x, Size2d kernel, const PoolingOptions<Size2d>& options) {
  return max_pool("max_pool2d", x, autograd::pooling_options(kernel, options));
}
Variable max_pool3d(const Variable& x, Size3d kernel, const PoolingOptions<Size3d>& options) {
  return max_pool("max_pool3d", x, autograd::pooling_options(kernel, options));
}

Variable avg_pool1d(const Variable& x, std::int64_t kernel,
                    const AveragePoolingOptions<std::int64_t>& options) {
  return avg_pool("avg_pool1d", x, autograd::pooling_options(kernel, options),
                  options.count_include_pad);
}
Variable avg_pool2d(const Variable& x, Size2d kernel,
                    const AveragePoolingOptions<Size2d>& options) {
  return avg_pool("avg_pool2d", x, autograd::pooling_options(kernel, options),
                  options.count_include_pad);
}
Variable avg_pool3d(const Variable& x, Size3d kernel,
                    const AveragePoolingOptions<Size3d>& options) {
  return avg_pool("avg_pool3d", x, autograd::pooling_options(kernel, options),
                  options.count_include_pad);
}

Variable global_avg_pool(const Variable& x) {
  const Shape& shape = x.shape();
  std::int64_t pixels = 1;
  for (std::size_t axis = 2; axis < shape.rank(); ++axis) pixels *= shape[axis];
  if (shape.rank() < 3 || pixels == 0) {
    throw ShapeError(fmt::format("global_avg_pool: expected shape (n, channels, ...), found {}",
                                 to_string(shape)));
  }
  const std::int64_t channels = shape[0] * shape[1];
  Tensor result = Tensor::empty({shape[0], shape[1]}, x.dtype());
  dispatch_kernel(x.dtype(), [&]<class T>() {
    const T* from = x.value().data<T>();
    for (std::int64_t channel = 0; channel < channels; ++channel, from += pixels) {
      result.data<T>()[channel] =
          static_cast<T>(kernels::sum(pixels, from) / static_cast<double>(pixels));
    }
  });
  return record(result, {x}, [channels, pixels](const Tensor& gradient, Slots slots) {
    slots[0].receive([&](Tensor& target, bool accumulate) {
      dispatch_kernel(gradient.dtype(), [&]<class T>() {
        T* to = target.data<T>();
        for (std::int64_t channel = 0; channel < channels; ++channel) {
          const T share = gradient.data<T>()[channel] / static_cast<T>(pixels);
          for (std::int64_t i = 0; i < pixels; ++i, ++to) *to = accumulate ? *to + share : share;
        }
      });
    });
  });
}

}  // namespace lockstep
