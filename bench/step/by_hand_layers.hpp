#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "step/networks.hpp"

/// Of by_hand.cpp.
namespace by_hand {

using Index = Eigen::Index;
template <class T>
using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class T>
using Map = Eigen::Map<Matrix<T>>;
template <class T>
using ConstMap = Eigen::Map<const Matrix<T>>;

enum class Activation { none, relu, tanh };

template <class T>
void activate(Activation activation, Map<T> y) {
  if (activation == Activation::relu) y = y.cwiseMax(T{0});
  if (activation == Activation::tanh) y = y.array().tanh();
}

// Makes the gradient of y = activation(x) that of x.
template <class T>
void deactivate(Activation activation, const ConstMap<T>& y, Map<T> gradient) {
  if (activation == Activation::relu) {
    gradient = (y.array() > T{0}).select(gradient, T{0});
  } else if (activation == Activation::tanh) {
    gradient.array() *= 1 - y.array().square();
  }
}

// A row each sample. Its parameters are windows of the flat buffers.
template <class T>
class Layer {
 public:
  virtual ~Layer() = default;
  virtual void forward(const T* x, T* y) = 0;
  // Spoils dy. dx is nullptr where nobody needs it.
  virtual void backward(const T* x, const T* y, T* dy, T* dx) = 0;
  virtual Index outputs() const = 0;  // of a sample
};

template <class T>
class Linear : public Layer<T> {
 public:
  Linear(Index batch, Index in, Index out, Activation activation, T* values, T* gradients)
      : batch_(batch),
        in_(in),
        out_(out),
        activation_(activation),
        weight_(values),
        gradient_(gradients) {}

  void forward(const T* x, T* y) override {
    Map<T> result(y, batch_, out_);
    result.noalias() = ConstMap<T>(x, batch_, in_) * ConstMap<T>(weight_, out_, in_).transpose();
    result.rowwise() += ConstMap<T>(weight_ + out_ * in_, 1, out_).row(0);
    activate<T>(activation_, result);
  }

  void backward(const T* x, const T* y, T* dy, T* dx) override {
    Map<T> gradient(dy, batch_, out_);
    deactivate<T>(activation_, ConstMap<T>(y, batch_, out_), gradient);
    Map<T>(gradient_, out_, in_).noalias() = gradient.transpose() * ConstMap<T>(x, batch_, in_);
    Map<T>(gradient_ + out_ * in_, 1, out_) = gradient.colwise().sum();
    if (dx != nullptr) {
      Map<T>(dx, batch_, in_).noalias() = gradient * ConstMap<T>(weight_, out_, in_);
    }
  }

  Index outputs() const override { return out_; }

 private:
  Index batch_, in_, out_;
  Activation activation_;
  const T* weight_;  // and after it the bias
  T* gradient_;
};

// 3 × 3 with padding 1, ReLU, and the maxima of 2 × 2. Columns are kept for the backward.
template <class T>
class Convolution : public Layer<T> {
 public:
  Convolution(Index batch, Index in, Index out, Index side, T* values, T* gradients)
      : batch_(batch),
        in_(in),
        out_(out),
        side_(side),
        weight_(values),
        gradient_(gradients),
        columns_(batch * taps(), pixels()),
        images_(out, pixels()),
        largest_(static_cast<std::size_t>(batch * outputs())) {}

  void forward(const T* x, T* y) override {
    std::int32_t* largest = largest_.data();
    for (Index sample = 0; sample < batch_; ++sample, x += in_ * pixels(), y += outputs()) {
      Map<T> columns = columns_of(sample);
      gather(x, columns.data());
      images_.noalias() = ConstMap<T>(weight_, out_, taps()) * columns;
      images_.colwise() += ConstMap<T>(weight_ + out_ * taps(), out_, 1).col(0);
      pool(images_.data(), y, largest);
      largest += outputs();
    }
  }

  void backward(const T*, const T* y, T* dy, T* dx) override {
    Map<T> weight_gradient(gradient_, out_, taps()),
        bias_gradient(gradient_ + out_ * taps(), out_, 1);
    weight_gradient.setZero();
    bias_gradient.setZero();
    if (dx != nullptr) std::fill_n(dx, batch_ * in_ * pixels(), T{0});
    const std::int32_t* largest = largest_.data();
    const Index pooled = outputs() / out_;
    for (Index sample = 0; sample < batch_; ++sample) {
      // ReLU commutes with the maximum, so it is here that it has its derivative.
      images_.setZero();
      for (Index channel = 0; channel < out_; ++channel) {
        T* image = images_.row(channel).data();
        for (Index i = 0; i < pooled; ++i, ++largest, ++y, ++dy) {
          image[*largest] = *y > 0 ? *dy : T{0};
        }
      }
      Map<T> columns = columns_of(sample);
      weight_gradient.noalias() += images_ * columns.transpose();
      bias_gradient += images_.rowwise().sum();
      if (dx == nullptr) continue;
      // The columns of this sample are not needed any more.
      columns.noalias() = ConstMap<T>(weight_, out_, taps()).transpose() * images_;
      scatter(columns.data(), dx + sample * in_ * pixels());
    }
  }

  Index outputs() const override { return out_ * (side_ / 2) * (side_ / 2); }

 private:
  static constexpr Index kernel = bench::Network::kernel;
  Index taps() const { return in_ * kernel * kernel; }
  Index pixels() const { return side_ * side_; }
  Map<T> columns_of(Index sample) {
    return {columns_.data() + sample * taps() * pixels(), taps(), pixels()};
  }

  // Calls f(row of columns, row of the image or nullptr, first, end) for each tap and row of pixels.
  template <class Image, class F>
  void for_rows(Image* x, F f) const {
    Index row = 0;
    for (Index channel = 0; channel < in_; ++channel, x += pixels()) {
      for (Index dy = -1; dy <= 1; ++dy) {
        for (Index dx = -1; dx <= 1; ++dx) {
          const Index first = std::max<Index>(-dx, 0), end = side_ - std::max<Index>(dx, 0);
          for (Index i = 0; i < side_; ++i, row += side_) {
            const bool inside = i + dy >= 0 && i + dy < side_;
            f(row, inside ? x + (i + dy) * side_ + dx : nullptr, first, end);
          }
        }
      }
    }
  }

  void gather(const T* x, T* columns) const {
    for_rows(x, [&](Index row, const T* image, Index first, Index end) {
      T* out = columns + row;
      if (image == nullptr) {
        std::fill_n(out, side_, T{0});
        return;
      }
      out[0] = out[side_ - 1] = 0;
      std::copy_n(image + first, end - first, out + first);
    });
  }

  void scatter(const T* columns, T* x) const {
    for_rows(x, [&](Index row, T* image, Index first, Index end) {
      if (image == nullptr) return;
      for (Index j = first; j < end; ++j) image[j] += columns[row + j];
    });
  }

  void pool(const T* __restrict images, T* __restrict y, std::int32_t* __restrict largest) const {
    const auto side = static_cast<std::int32_t>(side_);
    for (Index channel = 0; channel < out_; ++channel, images += pixels()) {
      for (std::int32_t i = 0; i < side; i += 2, y += side / 2, largest += side / 2) {
        const T* top = images + i * side;
        const T* bottom = top + side;
        for (std::int32_t j = 0; j < side / 2; ++j) {
          const T a = top[2 * j], b = top[2 * j + 1], c = bottom[2 * j], d = bottom[2 * j + 1];
          const T upper = std::max(a, b), lower = std::max(c, d);
          const std::int32_t above = b > a ? 1 : 0, below = d > c ? side + 1 : side;
          y[j] = std::max(std::max(upper, lower), T{0});
          largest[j] = i * side + 2 * j + (lower > upper ? below : above);
        }
      }
    }
  }

  Index batch_, in_, out_, side_;
  const T* weight_;
  T* gradient_;
  Matrix<T> columns_, images_;
  std::vector<std::int32_t> largest_;
};

}  // namespace by_hand
