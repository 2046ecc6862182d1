#include "lockstep/nn/batch_norm.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>
#include <vector>

#include "lockstep/core/error.hpp"
#include "tensor/dispatch.hpp"
#include "tensor/normalization.hpp"

namespace lockstep::nn {

using autograd::GradientSlot;
using autograd::record;
using kernels::Channels;
using Numbers = std::vector<double>;  // one a channel
using Slots = std::span<GradientSlot>;

namespace {

struct Statistics {
  Numbers mean, variance;
  double count = 0;  // numbers of a channel that they were taken from; 0 of running statistics
};

Statistics batch_statistics(const Channels& shape, const Tensor& x, StatisticsReducer* reducer) {
  const auto channels = static_cast<std::size_t>(shape.channels);
  Numbers sums(1 + channels), squares(channels);
  const auto sum = [reducer](std::span<double> numbers) {
    if (reducer != nullptr) reducer->sum(numbers);
  };
  return dispatch_kernel(x.dtype(), [&]<class T>() {
    sums[0] = static_cast<double>(shape.count());
    kernels::sum_channels(shape, x.data<T>(), &sums[1]);
    sum(sums);
    const double count = sums[0];
    if (count < 2) {
      throw StateError(
          fmt::format("BatchNorm: expected more than 1 value per channel when training or without "
                      "running statistics, found {} with an input of shape {}",
                      count, to_string(x.shape())));
    }
    Numbers mean(sums.begin() + 1, sums.end());
    for (double& value : mean) value /= count;
    kernels::sum_channel_squares(shape, x.data<T>(), mean.data(), squares.data());
    sum(squares);
    for (double& value : squares) value /= count;
    return Statistics{std::move(mean), std::move(squares), count};
  });
}

Numbers to_numbers(const Tensor& tensor) {
  const Tensor numbers = tensor.to(DType::f64);
  const auto span = numbers.span<double>();
  return {span.begin(), span.end()};
}

// running = (1 - share) · running + share · factor · batch
void move_towards(Tensor& running, double share, const Numbers& batch, double factor) {
  dispatch_kernel(running.dtype(), [&]<class T>() {
    T* out = running.data<T>();
    for (const double value : batch) {
      *out = static_cast<T>((1 - share) * static_cast<double>(*out) + share * factor * value);
      ++out;
    }
  });
}

// The maps factor · (x - mean) + offset of the channels, in order. What is lost of a mean that is
// rounded to T goes into the offset.
template <class T>
class ChannelMaps {
 public:
  explicit ChannelMaps(std::size_t channels) {
    for (std::vector<T>* numbers : {&center_, &factor_, &offset_}) numbers->reserve(channels);
  }
  void add(double factor, double mean, double offset) {
    center_.push_back(static_cast<T>(mean));
    factor_.push_back(static_cast<T>(factor));
    const double rest = mean - static_cast<double>(center_.back());
    offset_.push_back(static_cast<T>(offset - factor * rest));
  }
  kernels::ChannelMap<T> map() const { return {center_.data(), factor_.data(), offset_.data()}; }

 private:
  std::vector<T> center_, factor_, offset_;
};

// y = weight · x̂ + bias with x̂ = (x - mean) · inverse_std, where an undefined weight is 1.
struct Normalization {
  Channels shape;
  Numbers mean, inverse_std;
  double count;  // as that of Statistics
  Tensor weight;
  std::shared_ptr<StatisticsReducer> reducer;  // that has summed the statistics

  std::size_t channels() const { return mean.size(); }

  template <class T>
  double slope(std::size_t channel) const {
    const double scale = weight.defined() ? static_cast<double>(weight.span<T>()[channel]) : 1.0;
    return scale * inverse_std[channel];
  }

  template <class T>
  void forward(const T* x, const Tensor& bias, T* y) const {
    ChannelMaps<T> maps(channels());
    for (std::size_t channel = 0; channel < channels(); ++channel) {
      const double offset = bias.defined() ? static_cast<double>(bias.span<T>()[channel]) : 0.0;
      maps.add(slope<T>(channel), mean[channel], offset);
    }
    kernels::map_channels(shape, x, maps.map(), y);
  }

  template <class T>
  void backward(const T* x, const T* dy, Slots slots) const {
    Numbers sums(2 * channels());  // Σ dy and Σ dy · x̂
    const std::span<double> shifts = std::span(sums).first(channels());
    const std::span<double> scales = std::span(sums).last(channels());
    kernels::sum_channels(shape, dy, shifts.data());
    kernels::sum_channel_products(shape, x, mean.data(), dy, scales.data());
    for (std::size_t channel = 0; channel < channels(); ++channel) {
      scales[channel] *= inverse_std[channel];
    }
    if (weight.defined()) {
      receive<T>(slots[1], scales);
      receive<T>(slots[2], shifts);
    }
    double total = count;  // what the sums are divided by
    if (reducer != nullptr) {
      const double own = reducer->weight();
      for (double& sum : sums) sum *= own;
      reducer->sum(sums);
      total *= own;
    }
    // Running statistics do not depend on x.
    for (double& sum : sums) sum = total > 0 ? sum / total : 0;
    slots[0].receive([&](Tensor& target, bool accumulate) {
      ChannelMaps<T> maps(channels());
      std::vector<T> slopes(channels());
      for (std::size_t channel = 0; channel < channels(); ++channel) {
        const double slope = this->slope<T>(channel);
        slopes[channel] = static_cast<T>(slope);
        maps.add(-slope * inverse_std[channel] * scales[channel], mean[channel],
                 -slope * shifts[channel]);
      }
      kernels::map_channel_gradients(shape, x, maps.map(), dy, slopes.data(), target.data<T>(),
                                     accumulate);
    });
  }

 private:
  template <class T>
  static void receive(GradientSlot& slot, std::span<const double> gradient) {
    slot.receive([&](Tensor& target, bool accumulate) {
      T* out = target.data<T>();
      for (const double value : gradient) {
        *out = static_cast<T>(accumulate ? static_cast<double>(*out) + value : value);
        ++out;
      }
    });
  }
};

}  // namespace

BatchNorm::BatchNorm(std::int64_t channels, const BatchNormOptions& options)
    : channels_(channels), options_(options) {
  const auto check = [](bool holds, const char* expected, auto found) {
    if (!holds) throw OptionError(fmt::format("BatchNorm: expected {}, found {}", expected, found));
  };
  check(channels >= 1, "channels >= 1", channels);
  check(options.eps > 0 && std::isfinite(options.eps), "a finite eps > 0", options.eps);
  const double momentum = options.momentum.value_or(0);
  check(momentum >= 0 && momentum <= 1, "0 <= momentum <= 1", momentum);
  if (options.dtype != DType::f32 && options.dtype != DType::f64) {
    throw DTypeError(
        fmt::format("BatchNorm: expected dtype f32 or f64, found {}", to_string(options.dtype)));
  }
  if (options.affine) {
    weight = Parameter(Tensor::empty({channels}, options.dtype));
    bias = Parameter(Tensor::empty({channels}, options.dtype));
    BatchNorm::reset_parameters(RandomKey(0));
  }
  if (options.track_running_stats) {
    running_mean = Tensor::empty({channels}, options.dtype);
    running_var = Tensor::empty({channels}, options.dtype);
    num_batches_tracked = Tensor::empty({}, DType::i64);
    reset_running_stats();
  }
}

void BatchNorm::visit(Visitor& visitor) {
  visitor("weight", weight);
  visitor("bias", bias);
  visitor("running_mean", running_mean);
  visitor("running_var", running_var);
  visitor("num_batches_tracked", num_batches_tracked);
}

void BatchNorm::reset_parameters(RandomKey) {
  if (!weight.defined()) return;
  weight.mutable_value().fill(1);
  bias.mutable_value().fill(0);
}

void BatchNorm::reset_running_stats() {
  if (!running_mean.defined()) return;
  running_mean.fill(0);
  running_var.fill(1);
  num_batches_tracked.fill(0);
}

void BatchNorm::set_statistics_reducer(std::shared_ptr<StatisticsReducer> reducer) {
  reducer_ = std::move(reducer);
}

Variable BatchNorm::forward(const Variable& x) {
  const Shape& shape = x.shape();
  if (shape.rank() < 2 || shape[1] != channels_) {
    throw ShapeError(fmt::format("BatchNorm: expected an input of shape (n, {}, ...), found {}",
                                 channels_, to_string(shape)));
  }
  if (x.dtype() != options_.dtype) {
    throw DTypeError(fmt::format("BatchNorm: expected dtype {}, found {}",
                                 to_string(options_.dtype), to_string(x.dtype())));
  }
  std::int64_t run = 1;
  for (std::size_t axis = 2; axis < shape.rank(); ++axis) run *= shape[axis];
  const Channels channels{shape[0], channels_, run};

  const bool tracked = running_mean.defined();
  const auto reducer = training() ? reducer_ : nullptr;
  const Statistics statistics =
      training() || !tracked ? batch_statistics(channels, x.value(), reducer.get())
                             : Statistics{to_numbers(running_mean), to_numbers(running_var), 0};
  Numbers inverse_std = statistics.variance;
  for (double& value : inverse_std) value = 1 / std::sqrt(value + options_.eps);
  const Normalization plan{channels,
                           statistics.mean,
                           std::move(inverse_std),
                           statistics.count,
                           weight.defined() ? weight.value() : Tensor(),
                           reducer};
  Tensor result = Tensor::empty(shape, x.dtype());
  dispatch_kernel(x.dtype(), [&]<class T>() {
    plan.forward(x.value().data<T>(), bias.defined() ? bias.value() : Tensor(), result.data<T>());
  });
  if (training() && tracked) {
    const std::int64_t batches = ++*num_batches_tracked.data<std::int64_t>();
    const double share = options_.momentum.value_or(1 / static_cast<double>(batches));
    move_towards(running_mean, share, statistics.mean, 1);
    move_towards(running_var, share, statistics.variance,
                 statistics.count / (statistics.count - 1));
  }
  std::vector<Variable> inputs{x};
  if (weight.defined()) inputs.insert(inputs.end(), {weight, bias});
  return record(std::move(result), std::move(inputs),
                [input = x.value(), plan](const Tensor& gradient, Slots slots) {
                  dispatch_kernel(gradient.dtype(), [&]<class T>() {
                    plan.backward(input.data<T>(), gradient.data<T>(), slots);
                  });
                });
}

}  // namespace lockstep::nn
