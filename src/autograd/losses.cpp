#include "lockstep/autograd/losses.hpp"

#include <fmt/format.h>

#include <cmath>

#include "autograd/elementwise.hpp"
#include "lockstep/core/error.hpp"
#include "tensor/activations.hpp"
#include "tensor/kernels.hpp"

namespace lockstep {

using autograd::elementwise;
using autograd::one_over;
using autograd::receive;
using autograd::record;
using autograd::Slots;

namespace {

double total(const Tensor& numbers) {
  return dispatch_kernel(
      numbers.dtype(), [&]<class T>() { return kernels::sum(numbers.size(), numbers.data<T>()); });
}

// The mean of value(d), with d = prediction - target, whose derivative is slope(d).
template <class Value, class Slope>
Variable mean_of_difference(const char* what, const Variable& prediction, const Variable& target,
                            Value value, Slope slope) {
  check_same(prediction.value(), target.value(), what);
  const Tensor difference =
      elementwise([](auto x, auto y) { return x - y; }, prediction.value(), target.value());
  const double factor = one_over(difference.size());
  return record(
      Tensor::full({}, factor * total(elementwise(value, difference)), difference.dtype()),
      {prediction, target}, [difference, factor, slope](const Tensor& gradient, Slots slots) {
        const auto scaled = [slope](double by) {
          return [slope, by](auto d) { return static_cast<decltype(d)>(by) * slope(d); };
        };
        receive(slots[0], scaled(factor * gradient.item()), difference);
        receive(slots[1], scaled(-factor * gradient.item()), difference);
      });
}

template <class T>
T sign(T x) {
  return static_cast<T>(x > 0) - static_cast<T>(x < 0);
}

void check_labels(const char* what, const Shape& shape, const Tensor& labels) {
  if (shape.rank() != 2) {
    throw ShapeError(
        fmt::format("{}: logits: expected a matrix, found shape {}", what, to_string(shape)));
  }
  const std::int64_t rows = shape[0], classes = shape[1];
  if (labels.shape() != Shape{rows}) {
    throw ShapeError(fmt::format("{}: expected labels of shape ({}), found {}", what, rows,
                                 to_string(labels.shape())));
  }
  const std::span<const std::int64_t> label = labels.span<std::int64_t>();
  for (std::size_t row = 0; row < label.size(); ++row) {
    if (label[row] < 0 || label[row] >= classes) {
      throw DataError(
          fmt::format("{}: label {} of row {} is outside [0, {})", what, label[row], row, classes));
    }
  }
}

}  // namespace

Variable mean_squared_error(const Variable& prediction, const Variable& target) {
  check_same(prediction.value(), target.value(), "mean_squared_error");
  const Tensor difference =
      elementwise([](auto x, auto y) { return x - y; }, prediction.value(), target.value());
  const double factor = one_over(difference.size());
  const double total = dispatch_kernel(difference.dtype(), [&]<class T>() {
    return kernels::sum_squares(difference.size(), difference.data<T>());
  });
  return record(Tensor::full({}, factor * total, difference.dtype()), {prediction, target},
                [difference, factor](const Tensor& gradient, Slots slots) {
                  const double slope = 2 * factor * gradient.item();
                  const auto scaled = [](double by) {
                    return [by](auto d) { return static_cast<decltype(d)>(by) * d; };
                  };
                  receive(slots[0], scaled(slope), difference);
                  receive(slots[1], scaled(-slope), difference);
                });
}

Variable l1_loss(const Variable& prediction, const Variable& target) {
  return mean_of_difference(
      "l1_loss", prediction, target, [](auto d) { return std::abs(d); },
      [](auto d) { return sign(d); });
}

Variable huber_loss(const Variable& prediction, const Variable& target, double delta) {
  if (!(delta > 0)) {
    throw OptionError(fmt::format("huber_loss: expected delta > 0, found {}", delta));
  }
  // The difference where it is within delta, and delta with its sign elsewhere; NaN stays NaN.
  const auto slope = [delta]<class T>(T d) {
    const T limit = static_cast<T>(delta), below = d > limit ? limit : d;
    return below < -limit ? -limit : below;
  };
  const auto value = [slope]<class T>(T d) {
    const T within = slope(d);
    return within * (d - within / 2);
  };
  return mean_of_difference("huber_loss", prediction, target, value, slope);
}

Variable kl_divergence(const Variable& log_q, const Variable& p) {
  check_same(log_q.value(), p.value(), "kl_divergence");
  const Shape& shape = p.shape();
  if (shape.rank() == 0) {
    throw ShapeError("kl_divergence: expected at least one axis, found shape ()");
  }
  const auto value = []<class T>(T q, T probability) {
    return probability == 0 ? T{0} : probability * (std::log(probability) - q);
  };
  const std::int64_t length = shape[shape.rank() - 1];
  const double factor = length == 0 ? 0 : one_over(p.size() / length);
  return record(
      Tensor::full({}, factor * total(elementwise(value, log_q.value(), p.value())), p.dtype()),
      {log_q, p},
      [logarithms = log_q.value(), probabilities = p.value(), factor](const Tensor& gradient,
                                                                      Slots slots) {
        const double scale = factor * gradient.item();
        receive(
            slots[0],
            [scale]<class T>(T probability) { return -static_cast<T>(scale) * probability; },
            probabilities);
        receive(
            slots[1],
            [scale]<class T>(T q, T probability) {
              const T derivative = probability == 0 ? T{0} : std::log(probability) + 1 - q;
              return static_cast<T>(scale) * derivative;
            },
            logarithms, probabilities);
      });
}

Variable nll_loss(const Variable& log_probabilities, const Tensor& labels) {
  check_labels("nll_loss", log_probabilities.shape(), labels);
  const std::int64_t rows = log_probabilities.shape()[0], classes = log_probabilities.shape()[1];
  double sum = 0;
  dispatch_kernel(log_probabilities.dtype(), [&]<class T>() {
    const T* row = log_probabilities.value().data<T>();
    for (const std::int64_t label : labels.span<std::int64_t>()) {
      sum -= static_cast<double>(row[label]);
      row += classes;
    }
  });
  return record(Tensor::full({}, sum * one_over(rows), log_probabilities.dtype()),
                {log_probabilities}, [labels, rows, classes](const Tensor& gradient, Slots slots) {
                  const double slope = -gradient.item() * one_over(rows);
                  slots[0].receive([&](Tensor& target, bool accumulate) {
                    dispatch_kernel(target.dtype(), [&]<class T>() {
                      if (!accumulate) target.fill(0);
                      T* row = target.data<T>();
                      for (const std::int64_t label : labels.span<std::int64_t>()) {
                        row[label] += static_cast<T>(slope);
                        row += classes;
                      }
                    });
                  });
                });
}

Variable cross_entropy(const Variable& logits, const Tensor& labels) {
  check_labels("cross_entropy", logits.shape(), labels);
  const std::int64_t rows = logits.shape()[0], classes = logits.shape()[1];
  const std::int64_t* const label = labels.data<std::int64_t>();
  Tensor probabilities = Tensor::empty(logits.shape(), logits.dtype());
  const double total = dispatch_kernel(logits.dtype(), [&]<class T>() {
    return kernels::softmax_cross_entropy(rows, classes, logits.value().data<T>(), label,
                                          probabilities.data<T>());
  });
  return record(Tensor::full({}, total * one_over(rows), logits.dtype()), {logits},
                [probabilities, labels, rows, classes](const Tensor& gradient, Slots slots) {
                  const double factor = gradient.item() * one_over(rows);
                  slots[0].receive([&](Tensor& target, bool accumulate) {
                    dispatch_kernel(target.dtype(), [&]<class T>() {
                      const T* p = probabilities.data<T>();
                      const std::int64_t* wanted = labels.data<std::int64_t>();
                      T* out = target.data<T>();
                      for (std::int64_t row = 0; row < rows; ++row) {
                        for (std::int64_t j = 0; j < classes; ++j, ++p, ++out) {
                          const T derivative =
                              static_cast<T>(factor) * (*p - (j == wanted[row] ? T{1} : T{0}));
                          *out = accumulate ? *out + derivative : derivative;
                        }
                      }
                    });
                  });
                });
}

Variable binary_cross_entropy(const Variable& logits, const Variable& target) {
  check_same(logits.value(), target.value(), "binary_cross_entropy");
  // ln(1 + e^-|x|)
  Tensor rest = elementwise([](auto x) { return -std::abs(x); }, logits.value());
  dispatch_kernel(rest.dtype(), [&]<class T>() {
    kernels::softplus(rest.size(), T{1}, rest.data<T>(), rest.data<T>());
  });
  const Tensor values = elementwise(
      []<class T>(T x, T y, T logarithm) { return (x > 0 ? x : T{0}) - x * y + logarithm; },
      logits.value(), target.value(), rest);
  const double factor = one_over(values.size());
  return record(
      Tensor::full({}, factor * total(values), values.dtype()), {logits, target},
      [x = logits.value(), y = target.value(), factor](const Tensor& gradient, Slots slots) {
        const double scale = factor * gradient.item();
        if (slots[0].wanted()) {
          Tensor sigmoid = Tensor::empty(x.shape(), x.dtype());
          dispatch_kernel(x.dtype(), [&]<class T>() {
            kernels::activate(Activation::sigmoid, x.size(), x.data<T>(), sigmoid.data<T>());
          });
          const auto slope = [scale]<class T>(T probability, T wanted) {
            return static_cast<T>(scale) * (probability - wanted);
          };
          receive(slots[0], slope, sigmoid, y);
        }
        receive(
            slots[1], [scale]<class T>(T logit) { return -static_cast<T>(scale) * logit; }, x);
      });
}

}  // namespace lockstep
