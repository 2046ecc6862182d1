#include "tensor/kernels.hpp"

#include <algorithm>
#include <cmath>

#include "core/squares.hpp"
#include "tensor/block_sum.hpp"
#include "tensor/vector_map.hpp"

namespace lockstep::kernels {
template <class T>
void exp(std::int64_t n, const T* x, T* y) {
  map<T>(
      n, y, false, [](Vector<T> v) { return exponential<T>(v); }, x);
}

template <class T>
void log(std::int64_t n, const T* x, T* y) {
  map<T>(
      n, y, false, [](Vector<T> v) { return natural_logarithm<T>(v); }, x);
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

// Of n ≥ 1 numbers; NaN where all are, and where some are, NaN or the largest of the others.
template <class T>
T maximum(std::int64_t n, const T* x) {
  constexpr std::int64_t lanes = 64 / static_cast<std::int64_t>(sizeof(T));
  T largest[lanes];
  std::fill_n(largest, lanes, x[0]);
  const auto compare = [&](std::int64_t lane, T number) {
    largest[lane] = number > largest[lane] ? number : largest[lane];
  };
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    for (std::int64_t lane = 0; lane < lanes; ++lane) compare(lane, x[i + lane]);
  }
  for (std::int64_t lane = 0; i < n; ++i, ++lane) compare(lane, x[i]);
  return *std::max_element(largest, largest + lanes);
}

template <class T>
struct Exponentials {
  T largest, sum;
};

// y = exp(x - the largest x), of a row.
template <class T>
Exponentials<T> exponentials(std::int64_t length, const T* x, T* y) {
  const T largest = maximum(length, x);
  map<T>(
      length, y, false, [largest](Vector<T> v) { return exponential<T>(v - largest); }, x);
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
    const auto f = [mean](Vector<T> p, Vector<T> g) { return p * (g - mean); };
    map<T>(length, dx, accumulate, f, y, dy);
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
  for (std::int64_t row = 0; row < rows; ++row, y += length, dy += length, dx += length) {
    const T total = static_cast<T>(sum(length, dy));
    const auto f = [total](Vector<T> g, Vector<T> v) { return g - exponential<T>(v) * total; };
    map<T>(length, dx, accumulate, f, dy, y);
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
