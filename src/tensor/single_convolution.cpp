#include "tensor/single_convolution.hpp"

#include <algorithm>
#include <utility>

#include "tensor/activations.hpp"
#include "tensor/convolution.hpp"
#include "tensor/vector_map.hpp"

namespace lockstep::kernels {
namespace {

// Partial sums, of constant number so that their order does not depend on the processor.
template <class T>
constexpr std::int64_t lanes = 64 / static_cast<std::int64_t>(sizeof(T));

}  // namespace

template <class T>
SingleConvolution<T>::SingleConvolution(const Windows& windows)
    : windows_(windows),
      taps_(tap_offsets(windows)),
      // With what is read beyond its end.
      padded_(Tensor::zeros({windows.padded_pixels() + lanes<T>}, dtype_of<T>)) {
  const auto& [deep, vertical, horizontal] = windows;
  for (std::int64_t z = 0; z < deep.count(); ++z) {
    for (std::int64_t y = 0; y < vertical.count(); ++y) {
      rows_.push_back((z * vertical.padded() + y) * horizontal.padded());
    }
  }
  gradient_ = Tensor::zeros({std::ssize(rows_) * (horizontal.count() + lanes<T>)}, dtype_of<T>);
}

// Calls f(first window, how many, their sums over taps) for vectors of windows.
template <class T>
template <class F>
void SingleConvolution<T>::multiply(const T* image, F f) {
  pad(windows_, 1, image, padded_.data<T>());
  const T* const padded = std::as_const(padded_).data<T>();
  const std::int64_t columns = windows_.horizontal.count();
  std::int64_t window = 0;
  for (const std::int64_t row : rows_) {
    for (std::int64_t i = 0; i < columns; i += width<T>) {
      Vector<T> sum{};
      for (std::size_t tap = 0; tap < taps_.size(); ++tap) {
        sum += weight_[tap] * load<T>(padded + taps_[tap] + row + i);
      }
      f(window + i, std::min<std::int64_t>(width<T>, columns - i), sum);
    }
    window += columns;
  }
}

template <class T>
void SingleConvolution<T>::convolve(const T* image, const T* bias, Activation f, T* y) {
  const T offset = bias != nullptr ? *bias : -T{0};  // which changes not even the sign of a zero
  const std::int64_t windows = windows_.count();
  multiply(image, [=](std::int64_t window, std::int64_t count, Vector<T> sum) {
    // What is too much is overwritten by the next row.
    if (window + width<T> <= windows) {
      store<T>(sum + offset, y + window);
    } else {
      store<T>(sum + offset, y + window, count);
    }
  });
  activate(f, windows, y, y);
}

template <class T>
void SingleConvolution<T>::add_convolved(const T* image, T* y) {
  multiply(image, [y](std::int64_t window, std::int64_t count, Vector<T> sum) {
    store<T>(load<T>(y + window, count) + sum, y + window, count);
  });
}

template <class T>
void SingleConvolution<T>::add_weight_gradient(const T* image, const T* dz, T* dw) {
  const std::int64_t columns = windows_.horizontal.count();
  const std::int64_t length = (columns + lanes<T> - 1) / lanes<T> * lanes<T>;
  T* of_row = gradient_.data<T>();
  for (std::size_t row = 0; row < rows_.size(); ++row, of_row += length, dz += columns) {
    std::copy_n(dz, columns, of_row);
  }
  pad(windows_, 1, image, padded_.data<T>());
  for (const std::int64_t tap : taps_) {
    const T* seen = std::as_const(padded_).data<T>() + tap;
    const T* gradient = std::as_const(gradient_).data<T>();
    constexpr std::int64_t vectors = lanes<T> / width<T>;
    Vector<T> sums[vectors] = {};
    for (const std::int64_t row : rows_) {
      for (std::int64_t i = 0; i < length; i += lanes<T>) {
        for (std::int64_t v = 0; v < vectors; ++v) {
          const std::int64_t lane = i + v * width<T>;
          sums[v] += load<T>(gradient + lane) * load<T>(seen + row + lane);
        }
      }
      gradient += length;
    }
    T partial[lanes<T>], sum = 0;
    for (std::int64_t v = 0; v < vectors; ++v) store<T>(sums[v], partial + v * width<T>);
    for (const T value : partial) sum += value;
    *dw++ += sum;
  }
}

template class SingleConvolution<float>;
template class SingleConvolution<double>;

}  // namespace lockstep::kernels
