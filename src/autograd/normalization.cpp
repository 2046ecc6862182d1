#include "lockstep/autograd/normalization.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "lockstep/core/error.hpp"
#include "tensor/dispatch.hpp"
#include "tensor/row_norm.hpp"

namespace lockstep {

using autograd::GradientSlot;
using autograd::record;
using kernels::RowParts;
using Slots = std::span<GradientSlot>;

namespace {

void check_parameter(const char* what, const char* name, const Variable& parameter,
                     const Shape& shape) {
  if (!parameter.defined() || parameter.shape() == shape) return;
  throw ShapeError(fmt::format("{}: expected a {} of shape {}, found {}", what, name,
                               to_string(shape), to_string(parameter.shape())));
}

template <class T>
const T* data_or_null(const Tensor& tensor) {
  return tensor.defined() ? tensor.data<T>() : nullptr;
}

// target (+)= numbers
void store(const std::vector<double>& numbers, Tensor& target, bool accumulate) {
  dispatch_kernel(target.dtype(), [&]<class T>() {
    T* to = target.data<T>();
    for (const double number : numbers) {
      *to = static_cast<T>(accumulate ? static_cast<double>(*to) + number : number);
      ++to;
    }
  });
}

Variable normalize(const char* what, const Variable& x, const RowParts& rows,
                   const Variable& weight, const Variable& bias, double eps) {
  if (!(eps > 0)) throw OptionError(fmt::format("{}: expected eps > 0, found {}", what, eps));
  const auto count = static_cast<std::size_t>(rows.rows);
  std::vector<double> mean(count), factor(count);
  const Tensor w = weight.defined() ? weight.value() : Tensor();
  Tensor result = Tensor::empty(x.shape(), x.dtype());
  dispatch_kernel(x.dtype(), [&]<class T>() {
    const T* from = x.value().data<T>();
    kernels::row_moments(rows, from, eps, mean.data(), factor.data());
    kernels::normalize_rows(rows, from, mean.data(), factor.data(), data_or_null<T>(w),
                            bias.defined() ? bias.value().data<T>() : nullptr, result.data<T>());
  });
  std::vector<Variable> inputs{x};
  if (weight.defined()) inputs.push_back(weight);
  if (bias.defined()) inputs.push_back(bias);
  const auto backward = [input = x.value(), w, rows, mean = std::move(mean),
                         factor = std::move(factor),
                         has_bias = bias.defined()](const Tensor& gradient, Slots slots) {
    const auto numbers = static_cast<std::size_t>(rows.cycle * rows.parts);
    const bool of_weight = w.defined() && slots[1].wanted();
    const bool of_bias = has_bias && slots.back().wanted();
    std::vector<double> products(of_weight ? numbers : 0), sums(of_bias ? numbers : 0);
    dispatch_kernel(gradient.dtype(), [&]<class T>() {
      const auto run = [&](T* dx, bool accumulate) {
        kernels::normalize_rows_backward(rows, input.data<T>(), mean.data(), factor.data(),
                                         data_or_null<T>(w), gradient.data<T>(), dx, accumulate,
                                         of_weight ? products.data() : nullptr,
                                         of_bias ? sums.data() : nullptr);
      };
      if (slots[0].wanted()) {
        slots[0].receive(
            [&](Tensor& target, bool accumulate) { run(target.data<T>(), accumulate); });
      } else {
        run(nullptr, false);
      }
    });
    const auto give = [](GradientSlot& slot, const std::vector<double>& found) {
      slot.receive([&](Tensor& target, bool accumulate) { store(found, target, accumulate); });
    };
    if (of_weight) give(slots[1], products);
    if (of_bias) give(slots.back(), sums);
  };
  return record(result, std::move(inputs), backward);
}

}  // namespace

Variable layer_norm(const Variable& x, const Shape& features, const Variable& weight,
                    const Variable& bias, double eps) {
  const Shape& shape = x.shape();
  const std::int64_t length = features.size();
  if (features.rank() == 0 || length == 0 || shape.rank() < features.rank() ||
      !std::equal(features.begin(), features.end(), shape.end() - features.rank())) {
    throw ShapeError(fmt::format("layer_norm: expected an input whose last axes are {}, found {}",
                                 to_string(features), to_string(shape)));
  }
  check_parameter("layer_norm", "weight", weight, features);
  check_parameter("layer_norm", "bias", bias, features);
  return normalize("layer_norm", x, {x.size() / length, length, 1, 1}, weight, bias, eps);
}

Variable group_norm(const Variable& x, std::int64_t groups, const Variable& weight,
                    const Variable& bias, double eps) {
  const Shape& shape = x.shape();
  std::int64_t pixels = 1;
  for (std::size_t axis = 2; axis < shape.rank(); ++axis) pixels *= shape[axis];
  if (shape.rank() < 2 || shape[1] == 0 || pixels == 0) {
    throw ShapeError(fmt::format(
        "group_norm: expected an input of shape (n, channels, ...), found {}", to_string(shape)));
  }
  const std::int64_t channels = shape[1];
  if (groups < 1 || channels % groups != 0) {
    throw OptionError(fmt::format("group_norm: expected groups that divide {} channels, found {}",
                                  channels, groups));
  }
  check_parameter("group_norm", "weight", weight, {channels});
  check_parameter("group_norm", "bias", bias, {channels});
  return normalize("group_norm", x, {shape[0] * groups, channels / groups, pixels, groups}, weight,
                   bias, eps);
}

}  // namespace lockstep
