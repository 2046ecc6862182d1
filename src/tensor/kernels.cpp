#include "tensor/kernels.hpp"

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include "core/squares.hpp"

namespace lockstep::kernels {
namespace {

template <class T>
constexpr std::int64_t lanes = 64 / static_cast<std::int64_t>(sizeof(T));

template <class T>
using Block = Eigen::Array<T, static_cast<int>(lanes<T>), 1>;

// Applies f to blocks of 64 bytes; the last one is padded, so that every element takes the same
// path through Eigen's packet functions, which differ from their scalar twins in the last bit.
template <class T, class F>
void map_blocks(std::int64_t n, const T* x, T* y, F f) {
  Block<T> block;
  std::int64_t i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) {
    std::copy_n(x + i, lanes<T>, block.data());
    block = f(block).eval();
    std::copy_n(block.data(), lanes<T>, y + i);
  }
  if (i == n) return;
  block.setZero();
  std::copy_n(x + i, n - i, block.data());
  block = f(block).eval();
  std::copy_n(block.data(), n - i, y + i);
}

// Eigen's exp ends in denormal numbers, even of -infinity.
template <class T>
Block<T> exponential(const Block<T>& x) {
  constexpr T lowest = (std::numeric_limits<T>::min_exponent - 1) * std::numbers::ln2_v<T>;
  Block<T> y = x.exp();
  for (int lane = 0; lane < y.size(); ++lane) y[lane] = x[lane] < lowest ? T{0} : y[lane];
  return y;
}

// Sum of f(i) over begin ≤ i < end, in as many partial sums of type S as 64 bytes hold numbers of T.
template <class T, class S, class F>
S block_sum(std::int64_t begin, std::int64_t end, F f) {
  std::array<S, lanes<T>> partial{};
  std::int64_t i = begin;
  for (; i + lanes<T> <= end; i += lanes<T>) {
    for (std::int64_t lane = 0; lane < lanes<T>; ++lane) {
      partial[static_cast<std::size_t>(lane)] += f(i + lane);
    }
  }
  for (std::int64_t lane = 0; i + lane < end; ++lane) {
    partial[static_cast<std::size_t>(lane)] += f(i + lane);
  }
  S total = 0;
  for (const S value : partial) total += value;
  return total;
}

template <class T, class S, class F>
double sum_blocks(std::int64_t n, F f) {
  constexpr std::int64_t block = 1024;
  double total = 0;
  for (std::int64_t i = 0; i < n; i += block) {
    total += static_cast<double>(block_sum<T, S>(i, std::min(i + block, n), f));
  }
  return total;
}

}  // namespace

template <class T>
void exp(std::int64_t n, const T* x, T* y) {
  map_blocks(n, x, y, [](const Block<T>& v) { return exponential<T>(v); });
}

template <class T>
void log(std::int64_t n, const T* x, T* y) {
  map_blocks(n, x, y, [](const auto& v) { return v.log(); });
}

namespace {

// NaN stays NaN.
template <class T>
T positive(T x) {
  return x < 0 ? T{0} : x;
}

}  // namespace

template <class T>
void activate(Activation f, std::int64_t n, const T* x, T* y) {
  switch (f) {
    case Activation::none:
      if (x != y) std::copy_n(x, n, y);
      return;
    case Activation::relu:
      for (std::int64_t i = 0; i < n; ++i) y[i] = positive(x[i]);
      return;
    case Activation::tanh:
      return map_blocks(n, x, y, [](const auto& v) { return v.tanh(); });
    case Activation::sigmoid:
      return map_blocks(n, x, y, [](const auto& v) { return T{1} / (T{1} + (-v).exp()); });
  }
}

template <class T>
double sum(std::int64_t n, const T* x) {
  return sum_blocks<T, T>(n, [x](std::int64_t i) { return x[i]; });
}

template <class T>
double sum_squares(std::int64_t n, const T* x) {
  const auto count = static_cast<std::size_t>(n);
  double total = 0;
  for (std::size_t i = 0; i < count; i += squares_block<T>) {
    total += block_squares(std::min(squares_block<T>, count - i), x + i);
  }
  return total;
}

template <class T>
double dot(std::int64_t n, const T* x, const T* y) {
  return sum_blocks<T, double>(
      n, [x, y](std::int64_t i) { return static_cast<double>(x[i]) * static_cast<double>(y[i]); });
}

template <class T>
void sum_rows(std::int64_t rows, std::int64_t columns, const T* x, T* y, bool accumulate) {
  if (!accumulate) std::fill_n(y, columns, T{0});
  for (std::int64_t row = 0; row < rows; ++row) add_scaled(columns, T{1}, x + row * columns, y);
}

namespace {

// Of each row of y, f(y[j] + bias(row, j)).
template <class T, class Bias>
void add_bias(Activation f, std::int64_t rows, std::int64_t columns, Bias bias, T* y) {
  for (std::int64_t row = 0; row < rows; ++row) {
    T* out = y + row * columns;
    if (f == Activation::relu) {
      for (std::int64_t j = 0; j < columns; ++j) out[j] = positive(out[j] + bias(row, j));
    } else {
      for (std::int64_t j = 0; j < columns; ++j) out[j] += bias(row, j);
    }
  }
  if (f != Activation::relu) activate(f, rows * columns, y, y);
}

}  // namespace

template <class T>
void activate_rows(Activation f, std::int64_t rows, std::int64_t columns, const T* bias, T* y) {
  add_bias(
      f, rows, columns, [bias](std::int64_t, std::int64_t j) { return bias[j]; }, y);
}

template <class T>
void activate_columns(Activation f, std::int64_t rows, std::int64_t columns, const T* bias, T* y) {
  add_bias(
      f, rows, columns, [bias](std::int64_t row, std::int64_t) { return bias[row]; }, y);
}

namespace {

template <class T, class F>
void store(std::int64_t n, T* x, bool accumulate, F f) {
  if (accumulate) {
    for (std::int64_t i = 0; i < n; ++i) x[i] += f(i);
  } else {
    for (std::int64_t i = 0; i < n; ++i) x[i] = f(i);
  }
}

}  // namespace

template <class T>
void activation_gradient(Activation f, std::int64_t n, const T* y, const T* dy, T* dx,
                         bool accumulate) {
  const auto one = [=](std::int64_t i) { return dy[i]; };
  // Not dy · 0, which is NaN for an infinite dy.
  const auto step = [=](std::int64_t i) { return y[i] > 0 ? dy[i] : T{0}; };
  const auto tanh = [=](std::int64_t i) { return dy[i] * (1 - y[i] * y[i]); };
  const auto sigmoid = [=](std::int64_t i) { return dy[i] * (y[i] * (1 - y[i])); };
  switch (f) {
    case Activation::none:
      return store(n, dx, accumulate, one);
    case Activation::relu:
      return store(n, dx, accumulate, step);
    case Activation::tanh:
      return store(n, dx, accumulate, tanh);
    case Activation::sigmoid:
      return store(n, dx, accumulate, sigmoid);
  }
}

template <class T>
void add_scaled(std::int64_t n, T factor, const T* x, T* y) {
  for (std::int64_t i = 0; i < n; ++i) y[i] += factor * x[i];
}

template <class T>
void move_towards(std::int64_t n, T share, const T* x, T* y) {
  for (std::int64_t i = 0; i < n; ++i) y[i] += share * (x[i] - y[i]);
}

template <class T>
void scale(std::int64_t n, T factor, T* x) {
  for (std::int64_t i = 0; i < n; ++i) x[i] *= factor;
}

namespace {

template <class T>
struct Exponentials {
  T largest, sum;
};

// y = exp(x - the largest x), of a row.
template <class T>
Exponentials<T> exponentials(std::int64_t length, const T* x, T* y) {
  const T largest = *std::max_element(x, x + length);
  map_blocks(length, x, y, [largest](const Block<T>& v) { return exponential<T>(v - largest); });
  return {largest, static_cast<T>(sum(length, y))};
}

}  // namespace

template <class T>
void softmax(std::int64_t rows, std::int64_t length, const T* x, T* y) {
  for (std::int64_t row = 0; row < rows; ++row, x += length, y += length) {
    const T total = exponentials(length, x, y).sum;
    for (std::int64_t j = 0; j < length; ++j) y[j] /= total;
  }
}

template <class T>
void softmax_gradient(std::int64_t rows, std::int64_t length, const T* y, const T* dy, T* dx,
                      bool accumulate) {
  for (std::int64_t row = 0; row < rows; ++row, y += length, dy += length, dx += length) {
    const T mean = static_cast<T>(dot(length, y, dy));
    store(length, dx, accumulate, [=](std::int64_t j) { return y[j] * (dy[j] - mean); });
  }
}

template <class T>
void log_softmax(std::int64_t rows, std::int64_t length, const T* x, T* y) {
  for (std::int64_t row = 0; row < rows; ++row, x += length, y += length) {
    const auto [largest, total] = exponentials(length, x, y);
    const T logarithm = std::log(total);
    for (std::int64_t j = 0; j < length; ++j) y[j] = (x[j] - largest) - logarithm;
  }
}

template <class T>
void log_softmax_gradient(std::int64_t rows, std::int64_t length, const T* y, const T* dy, T* dx,
                          bool accumulate) {
  std::vector<T> probabilities(static_cast<std::size_t>(length));
  for (std::int64_t row = 0; row < rows; ++row, y += length, dy += length, dx += length) {
    exp(length, y, probabilities.data());
    const T total = static_cast<T>(sum(length, dy));
    store(length, dx, accumulate,
          [=, p = probabilities.data()](std::int64_t j) { return dy[j] - p[j] * total; });
  }
}

template <class T>
double softmax_cross_entropy(std::int64_t rows, std::int64_t classes, const T* logits,
                             const std::int64_t* labels, T* probabilities) {
  double loss = 0;
  for (std::int64_t row = 0; row < rows; ++row) {
    const T* x = logits + row * classes;
    T* p = probabilities + row * classes;
    const auto [largest, total] = exponentials(classes, x, p);
    for (std::int64_t j = 0; j < classes; ++j) p[j] /= total;
    loss += static_cast<double>(std::log(total) - (x[labels[row]] - largest));
  }
  return loss;
}

#define LOCKSTEP_INSTANTIATE(T)                                                                    \
  template void exp<T>(std::int64_t, const T*, T*);                                                \
  template void log<T>(std::int64_t, const T*, T*);                                                \
  template double sum<T>(std::int64_t, const T*);                                                  \
  template double sum_squares<T>(std::int64_t, const T*);                                          \
  template double dot<T>(std::int64_t, const T*, const T*);                                        \
  template void sum_rows<T>(std::int64_t, std::int64_t, const T*, T*, bool);                       \
  template void activate<T>(Activation, std::int64_t, const T*, T*);                               \
  template void activate_rows<T>(Activation, std::int64_t, std::int64_t, const T*, T*);            \
  template void activate_columns<T>(Activation, std::int64_t, std::int64_t, const T*, T*);         \
  template void activation_gradient<T>(Activation, std::int64_t, const T*, const T*, T*, bool);    \
  template void add_scaled<T>(std::int64_t, T, const T*, T*);                                      \
  template void move_towards<T>(std::int64_t, T, const T*, T*);                                    \
  template void scale<T>(std::int64_t, T, T*);                                                     \
  template void softmax<T>(std::int64_t, std::int64_t, const T*, T*);                              \
  template void softmax_gradient<T>(std::int64_t, std::int64_t, const T*, const T*, T*, bool);     \
  template void log_softmax<T>(std::int64_t, std::int64_t, const T*, T*);                          \
  template void log_softmax_gradient<T>(std::int64_t, std::int64_t, const T*, const T*, T*, bool); \
  template double softmax_cross_entropy<T>(std::int64_t, std::int64_t, const T*,                   \
                                           const std::int64_t*, T*);
LOCKSTEP_INSTANTIATE(float)
LOCKSTEP_INSTANTIATE(double)
#undef LOCKSTEP_INSTANTIATE

}  // namespace lockstep::kernels
