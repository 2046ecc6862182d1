#include "tensor/activations.hpp"

#include <algorithm>

#include "tensor/vector_map.hpp"
#include "tensor/vector_normal.hpp"

namespace lockstep::kernels {
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
      return map<T>(
          n, y, false, [](Vector<T> v) { return hyperbolic_tangent<T>(v); }, x);
    case Activation::sigmoid:
      return map<T>(
          n, y, false, [](Vector<T> v) { return logistic<T>(v); }, x);
  }
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

template <class T>
void activation_gradient(Activation f, std::int64_t n, const T* y, const T* dy, T* dx,
                         bool accumulate) {
  using V = Vector<T>;
  switch (f) {
    case Activation::none:
      return map<T>(
          n, dx, accumulate, [](V g) { return g; }, dy);
    case Activation::relu:
      // Not dy · 0, which is NaN for an infinite dy.
      return map<T>(
          n, dx, accumulate, [](V g, V v) { return v > 0 ? g : V{}; }, dy, y);
    case Activation::tanh:
      return map<T>(
          n, dx, accumulate, [](V g, V v) { return g * (1 - v * v); }, dy, y);
    case Activation::sigmoid:
      return map<T>(
          n, dx, accumulate, [](V g, V v) { return g * (v * (1 - v)); }, dy, y);
  }
}

namespace {

template <class C>
struct ValueAndSlope {
  Vector<C> value, slope;
};

// By vectors of numbers of type C.
template <class C, class T, class F>
void map_with_slope(std::int64_t n, const T* x, T* y, T* slope, F f) {
  for_each_vector<C>(n, [&](std::int64_t i, auto count) {
    const ValueAndSlope<C> at = f(load<C>(x + i, count));
    store<C>(at.value, y + i, count);
    if (slope != nullptr) store<C>(at.slope, slope + i, count);
  });
}

}  // namespace

template <class T>
void gelu(std::int64_t n, const T* x, T* y, T* slope) {
  map_with_slope<double>(n, x, y, slope, [](Vector<double> v) -> ValueAndSlope<double> {
    const Normal at = normal<T>(v);
    return {at.gelu, at.distribution + detail::within<double>(v, normal_limit<T>) * at.density};
  });
}

template <class T>
void silu(std::int64_t n, const T* x, T* y, T* slope) {
  map_with_slope<T>(n, x, y, slope, [](Vector<T> v) -> ValueAndSlope<T> {
    // Of σ(v) and 1 - σ(v) the smaller one, and from that the other.
    const Vector<T> less = logistic<T>(v > 0 ? -v : v), more = 1 - less;
    return {v * (v > 0 ? more : less), v > 0 ? more * (1 + v * less) : less * (1 + v * more)};
  });
}

template <class T>
void softplus(std::int64_t n, T beta, const T* x, T* y) {
  map<T>(
      n, y, false, [beta](Vector<T> v) { return softplus<T>(beta * v) / beta; }, x);
}

template <class T>
void softplus_gradient(std::int64_t n, T beta, const T* x, const T* dy, T* dx, bool accumulate) {
  const auto f = [beta](Vector<T> g, Vector<T> v) { return g * logistic<T>(beta * v); };
  map<T>(n, dx, accumulate, f, dy, x);
}

template <class T>
void leaky_relu(std::int64_t n, T slope, const T* x, T* y) {
  map<T>(
      n, y, false, [slope](Vector<T> v) { return v > 0 ? v : slope * v; }, x);
}

template <class T>
void leaky_relu_gradient(std::int64_t n, T slope, const T* x, const T* dy, T* dx, bool accumulate) {
  const auto f = [slope](Vector<T> g, Vector<T> v) { return v > 0 ? g : g * slope; };
  map<T>(n, dx, accumulate, f, dy, x);
}

template <class T>
void elu(std::int64_t n, T alpha, const T* x, T* y) {
  const auto f = [alpha](Vector<T> v) { return v > 0 ? v : alpha * exponential_minus_one<T>(v); };
  map<T>(n, y, false, f, x);
}

template <class T>
void elu_gradient(std::int64_t n, T alpha, const T* x, const T* dy, T* dx, bool accumulate) {
  const auto f = [alpha](Vector<T> g, Vector<T> v) {
    return v > 0 ? g : g * (alpha * exponential<T>(v));
  };
  map<T>(n, dx, accumulate, f, dy, x);
}

#define LOCKSTEP_INSTANTIATE(T)                                                                 \
  template void activate<T>(Activation, std::int64_t, const T*, T*);                            \
  template void activate_rows<T>(Activation, std::int64_t, std::int64_t, const T*, T*);         \
  template void activate_columns<T>(Activation, std::int64_t, std::int64_t, const T*, T*);      \
  template void activation_gradient<T>(Activation, std::int64_t, const T*, const T*, T*, bool); \
  template void gelu<T>(std::int64_t, const T*, T*, T*);                                        \
  template void silu<T>(std::int64_t, const T*, T*, T*);                                        \
  template void softplus<T>(std::int64_t, T, const T*, T*);                                     \
  template void softplus_gradient<T>(std::int64_t, T, const T*, const T*, T*, bool);            \
  template void leaky_relu<T>(std::int64_t, T, const T*, T*);                                   \
  template void leaky_relu_gradient<T>(std::int64_t, T, const T*, const T*, T*, bool);          \
  template void elu<T>(std::int64_t, T, const T*, T*);                                          \
  template void elu_gradient<T>(std::int64_t, T, const T*, const T*, T*, bool);
LOCKSTEP_INSTANTIATE(float)
LOCKSTEP_INSTANTIATE(double)
#undef LOCKSTEP_INSTANTIATE

}  // namespace lockstep::kernels
